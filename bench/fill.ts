import { Redis } from 'ioredis'
import { type Call, runBatch } from '../src/redis/batch.ts'
import { keys, randomSessionId, slotOf, tagOfSlot } from '../src/redis/keys.ts'
import { formatRecord } from '../src/redis/record.ts'
import { defineScripts } from '../src/redis/scripts.ts'

const AT_ONCE = 500
const TIMES = { timeoutMs: 3_600_000, ttlMs: 86_400_000, endedTtlMs: 3_600_000 }

/**
 * Live sessions that only have to be there, a user each, by the service's own scripts: over HTTP a million would take minutes.
 * Their events are taken out of the outbox at once, as after their delivery.
 */
export async function fill (url: string, count: number): Promise<void> {
  const redis = new Redis(url, { lazyConnect: true })
  defineScripts(redis)
  await redis.connect()
  try {
    for (let from = 0; from < count; from += AT_ONCE) {
      const users = Array.from({ length: Math.min(AT_ONCE, count - from) }, (_, index) => `idle-viewer-${from + index}`)
      const starts = users.map((userId): Call => {
        const sessionId = randomSessionId(userId)
        const tag = tagOfSlot(slotOf(userId))
        const [head, tail] = formatRecord(
          { sessionId, userId, profileId: 'profile-1', contentId: 'content789', deviceId: 'television-4711', position: 0, limit: 5, limitSource: 'plan', fingerprint: '' },
          new Date().toISOString()
        )
        return client => client.createSession(
          6, keys.session(sessionId), keys.ended(sessionId), keys.concurrency(userId), keys.userSessions(userId), keys.due(tag), keys.outbox(tag),
          sessionId, head, tail, 5, TIMES.timeoutMs, TIMES.ttlMs, TIMES.endedTtlMs, 0, 'probe', 'reject', 0, 'television-4711', ''
        )
      })
      const entries = (await runBatch(redis, starts)).map(reply => {
        if (!reply.ok) throw reply.error
        return Array.isArray(reply.value) ? String(reply.value[3]) : ''
      })
      await runBatch(redis, users.map((userId, at) => client => client.acknowledgeEvents(1, keys.outbox(tagOfSlot(slotOf(userId))), 1, entries[at] ?? '')))
    }
  } finally {
    redis.disconnect()
  }
}
