import { createHash } from 'node:crypto'
import { ProblemError } from '../../problems.ts'
import { keyedSessionId, randomSessionId } from '../../redis/keys.ts'
import type { SessionRecord } from '../../redis/record.ts'
import type { Started, StartRequest } from '../../schemas.ts'
import { endedProblem } from './ended-problem.ts'
import type { LifecycleParts } from './lifecycle.ts'
import { toSessionResource, toSlotResource } from './resources.ts'

export type StartOutcome = { repeated: boolean, body: Started }

const MAX_LISTED = 20

/**
 * Starts a session: entitlement and availability side by side, then slot, record, index, due time and event in one script,
 * then the token, which is a function of the record. A repeated Idempotency-Key is answered before anyone is asked anything.
 */
export class Starter {
  readonly #parts: LifecycleParts
  readonly #idempotencySecret: string

  constructor (parts: LifecycleParts, idempotencySecret: string) {
    this.#parts = parts
    this.#idempotencySecret = idempotencySecret
  }

  /** @param region vouched for, or the default. @throws ProblemError for every refusal of DESIGN's start table. */
  async start (request: StartRequest, region: string, idempotencyKey: string | undefined): Promise<StartOutcome> {
    const { slots, sessions, observer } = this.#parts
    const fingerprint = idempotencyKey === undefined ? '' : fingerprintOf(request)
    const sessionId = idempotencyKey === undefined
      ? randomSessionId(request.user_id)
      : keyedSessionId(this.#idempotencySecret, request.user_id, idempotencyKey)
    const session = {
      sessionId,
      userId: request.user_id,
      profileId: request.profile_id,
      contentId: request.content_id,
      deviceId: request.device_id,
      position: request.position ?? 0,
      fingerprint
    }
    if (idempotencyKey !== undefined) {
      const view = await sessions.read(sessionId)
      if (view.state === 'ended') throw keyReused(view.ended.session.fingerprint, fingerprint) ?? endedProblem(view.ended)
      // The first try may have been 503 because no replica had the session: a repeat must not promise more than it did.
      if (view.state === 'live' && await slots.confirm(session)) return this.#repeat(view.session, fingerprint, (await slots.list(request.user_id)).active)
    }
    const limit = await this.#permittedLimit(request, region)
    const outcome = await slots.acquire({
      session: { ...session, limit: limit ?? this.#parts.limit, limitSource: limit === undefined ? 'default' : 'plan' },
      metadata: request.metadata === undefined ? '' : JSON.stringify(request.metadata),
      onLimit: request.on_limit ?? 'reject',
      supersede: request.supersede ?? []
    })
    switch (outcome.outcome) {
      case 'admitted':
        this.#parts.events.publish(outcome.events)
        for (const event of outcome.events) if (event.reason !== undefined) observer.ended(event.reason)
        observer.started()
        return { repeated: false, body: this.#body(outcome.session, outcome.active) }
      case 'exists': return this.#repeat(outcome.session, fingerprint, outcome.active)
      case 'ended': throw keyReused(outcome.ended.session.fingerprint, fingerprint) ?? endedProblem(outcome.ended)
      case 'refused':
        observer.refused('concurrency-limit-reached')
        throw this.#limitReached(limit ?? this.#parts.limit, outcome.active, outcome.sessions)
    }
  }

  /** The limit of the user's plan, undefined where it names none. @throws ProblemError 403 or 503. */
  async #permittedLimit (request: StartRequest, region: string): Promise<number | undefined> {
    const decision = await this.#parts.entitlements.decide({
      userId: request.user_id, profileId: request.profile_id, contentId: request.content_id, region
    })
    if (decision.outcome === 'granted') return decision.limit
    if (decision.outcome === 'unknown') {
      const code = decision.about === 'entitlement' ? 'entitlement-unknown' : 'availability-unknown'
      this.#parts.observer.refused(code)
      throw new ProblemError(code, `The ${decision.about} could not be determined; try again shortly.`, { retryAfterSeconds: decision.retryAfterSeconds })
    }
    this.#parts.observer.refused(decision.outcome)
    const detail = decision.outcome === 'not-entitled' ? 'The user\'s plan does not include this content.' : 'The content cannot be played in this region.'
    throw new ProblemError(decision.outcome, detail, decision.reason === undefined ? {} : { extensions: { reason: decision.reason } })
  }

  #repeat (session: SessionRecord, fingerprint: string, active: number): StartOutcome {
    const reused = keyReused(session.fingerprint, fingerprint)
    if (reused !== undefined) throw reused
    return { repeated: true, body: this.#body(session, active) }
  }

  /** The first token of a session is made of its start time, so an immediate repeat reads the same one; later it would be too old. */
  #body (session: SessionRecord, active: number): Started {
    const { tokens, clock, heartbeatMs } = this.#parts
    const nowMs = clock.nowMs()
    const startedMs = Date.parse(session.startedAt)
    const young = nowMs - startedMs < this.#parts.tokenLifeMs / 2
    const { token, expiresAtMs } = tokens.issue(session, young ? startedMs : nowMs)
    return {
      session: toSessionResource(session),
      playback_token: token,
      token_expires_at: new Date(expiresAtMs).toISOString(),
      heartbeat_interval: Math.round(heartbeatMs / 1_000),
      concurrency: { active, limit: session.limit }
    }
  }

  /** 409 with a clock: who holds the slots, and when the first of them would fall free by itself. */
  #limitReached (limit: number, active: number, live: readonly SessionRecord[]): ProblemError {
    const { timeoutMs, clock } = this.#parts
    const soonestMs = Math.min(...live.map(session => session.beatMs + timeoutMs)) - clock.nowMs()
    const retryAfterSeconds = Number.isFinite(soonestMs) ? Math.max(1, Math.ceil(soonestMs / 1_000)) : 1
    return new ProblemError('concurrency-limit-reached', `All ${limit} streams of the account are in use.`, {
      retryAfterSeconds,
      extensions: { limit, active, sessions: live.slice(0, MAX_LISTED).map(session => toSlotResource(session, timeoutMs)) }
    })
  }
}

/** 422 when the key's session was started by another request. */
function keyReused (stored: string, given: string): ProblemError | undefined {
  if (stored === given) return undefined
  return new ProblemError('idempotency-key-reused', 'The Idempotency-Key was used for a start with another body.')
}

/** SHA-256 of the request with its members in order, so that equal requests are equal whatever the client's order. */
function fingerprintOf (request: StartRequest): string {
  return createHash('sha256').update(canonical(request)).digest('hex')
}

function canonical (value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const members = Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1)
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`).join()}}`
}
