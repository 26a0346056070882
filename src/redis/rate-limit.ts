import type { RedisClock } from './clock.ts'
import { keys, slotOf } from './keys.ts'
import type { RedisClient } from './scripts.ts'
import { ManySlots } from './many-slots.ts'

export interface UserRateLimitOptions {
  client: RedisClient
  clock: RedisClock
  /** Requests of one user per minute, and at once; at least 1. */
  perMinute: number
}

const WAIT_WIDTH = 5

/** How often a user may ask, counted in Redis for all instances together (`lua/rate-limit.lua`). The requests of a tick share a call. */
export class UserRateLimit {
  readonly #waits: ManySlots<string, number>

  constructor ({ client, clock, perMinute }: UserRateLimitOptions) {
    this.#waits = new ManySlots({
      client,
      slotOf,
      call: (redis, userIds) => redis.rateLimit(userIds.length, ...userIds.map(keys.rate), perMinute),
      read: (reply, userIds) => {
        const [nowMs, text]: unknown[] = Array.isArray(reply) ? reply : []
        clock.observe(Number(nowMs))
        return userIds.map((_, at) => Number(String(text).slice(at * WAIT_WIDTH, (at + 1) * WAIT_WIDTH)))
      }
    })
  }

  /** Takes one request from what the user may do: 0, or the ms until there is one to take. @throws Redis errors. */
  async take (userId: string): Promise<number> {
    return await this.#waits.one(userId)
  }
}
