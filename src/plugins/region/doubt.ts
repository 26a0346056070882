import { ProblemError } from '../../problems.ts'
import { storeProblem } from '../../redis/errors.ts'

/** What a replica may not have yet. Replication takes milliseconds; this covers one that stutters for as long as it counts as fresh. */
const YOUNG_MS = 60_000

/** Whether a writer's failure means that Redis refuses writes: a replica, or a fenced master. Such a call has changed nothing. */
export function refusesWrites (error: unknown): boolean {
  return error instanceof Error && /^(READONLY|NOREPLICAS)\b/.test(error.message)
}

/** Whether only the writer can say if a reader's failure is true: a session not found may have been started just now. */
export function doubtfulFailure (error: unknown): boolean {
  return error instanceof ProblemError ? error.code === 'session-not-found' : storeProblem(error) !== undefined
}

/**
 * Whether only the writer can say if a verdict on tokens is true: silence may be a heartbeat on its way, and the missing session of a young token
 * may be on its own. An older token's missing session has ended, and "ended" is for ever.
 */
export function doubtfulVerdicts (body: unknown, answer: unknown, nowMs: number): boolean {
  const { token, tokens }: Record<string, unknown> = { ...Object(body) }
  const { results }: Record<string, unknown> = { ...Object(answer) }
  const asked: unknown[] = Array.isArray(tokens) ? tokens : [token]
  const verdicts: unknown[] = Array.isArray(results) ? results : [answer]
  return verdicts.some((verdict, index) => {
    const { reason }: Record<string, unknown> = { ...Object(verdict) }
    return reason === 'lapsed' || (reason === 'ended' && nowMs - issuedMs(asked[index]) < YOUNG_MS)
  })
}

/** `iat` of a token that has been verified. */
function issuedMs (token: unknown): number {
  const payload: unknown = JSON.parse(Buffer.from(String(token).split('.')[1] ?? '', 'base64url').toString())
  return Number(Object(payload).iat) * 1_000
}

/** Whether heartbeats of a batch met a Redis that did not take them. */
export function failedBeats (answer: unknown): boolean {
  const { results }: Record<string, unknown> = { ...Object(answer) }
  return Array.isArray(results) && results.some(result => Object(result).code === 'store-unavailable')
}
