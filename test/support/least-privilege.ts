import { readFileSync } from 'node:fs'
import { Redis } from 'ioredis'

/**
 * `TEST_REDIS_ACL=1`: servers know the service's user of deploy/redis/users.acl, the service comes as that user, and a server that has refused it
 * anything fails its test when it is closed. Tests themselves come as the default user, who may do everything.
 */
export const LEAST_PRIVILEGE = process.env.TEST_REDIS_ACL === '1'

const [USERNAME, PASSWORD] = ['viewing', 'password-for-tests-0123456789']

/** Text of an access list for a test server. */
export function accessList (): string {
  const rules = /^user viewing .*$/m.exec(readFileSync(new URL('../../deploy/redis/users.acl', import.meta.url), 'utf8'))?.[0]
  if (rules === undefined) throw new Error('deploy/redis/users.acl has no user viewing')
  return `user default on nopass allkeys allchannels +@all\n${rules} >${PASSWORD}\n`
}

/** The service's environment; where it names a Redis without a user or password, the service's own are put in. */
export function withUser (env: Record<string, string>): Record<string, string> {
  if (!LEAST_PRIVILEGE || env.REDIS_PASSWORD !== undefined) return env
  if (env.REDIS_URL !== undefined) {
    const url = new URL(env.REDIS_URL)
    if (url.password !== '' || url.protocol !== 'redis:') return env
    url.username = USERNAME
    url.password = PASSWORD
    return { ...env, REDIS_URL: url.href }
  }
  const named = env.REDIS_ADDR ?? env.REDIS_CLUSTER ?? env.REDIS_SENTINELS
  return named === undefined ? env : { ...env, REDIS_USERNAME: USERNAME, REDIS_PASSWORD: PASSWORD }
}

/** @throws Error when the server has refused the service's user anything. */
export async function checkRefusals (port: number): Promise<void> {
  const client = new Redis({ host: '127.0.0.1', port, lazyConnect: true, retryStrategy: null, maxRetriesPerRequest: 0 })
  client.on('error', () => { /* a server that is down has nothing to say */ })
  try {
    await client.connect()
  } catch {
    return
  }
  const refusals = JSON.stringify(await client.acl('LOG').finally(() => { client.disconnect() }))
  if (refusals.includes(`"${USERNAME}"`)) throw new Error(`Redis refused the service: ${refusals}`)
}
