import { Redis } from 'ioredis'
import { startRedis } from '../test/support/redis-server.ts'
import { requireRedis } from '../test/support/requirements.ts'
import { fill } from './fill.ts'

/** Redis memory by the number of live sessions: `node bench/memory.ts 100000 400000 1000000`. Each with the ids of `fill`, of 40 to 60 characters together. */
const sizes = process.argv.slice(2).map(Number)
const server = await startRedis({ program: requireRedis().program })
const redis = new Redis(server.url)
const used = async (): Promise<number> => Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1])
const empty = await used()
for (const size of sizes.length > 0 ? sizes : [10_000, 100_000]) {
  await redis.flushall()
  const began = performance.now()
  await fill(server.url, size)
  const bytes = await used() - empty
  process.stdout.write(`${String(size).padStart(9)} sessions  ${(bytes / 2 ** 20).toFixed(1).padStart(8)} MiB  ${(bytes / size).toFixed(0)} bytes each  filled in ${((performance.now() - began) / 1_000).toFixed(0)} s\n`)
}
redis.disconnect()
await server.close()
