import { ProblemError } from '../../problems.ts'
import type { RedisClock } from '../../redis/clock.ts'
import { type EndCause, ENDINGS, type EventReason } from '../../redis/outbox.ts'
import { slotOf } from '../../redis/keys.ts'
import type { Pulse } from '../../redis/pulse.ts'
import type { EndedRecord, LiveStatus } from '../../redis/record.ts'
import { storeProblem } from '../../redis/errors.ts'
import type { HeartbeatAnswer, HeartbeatRequest, HeartbeatsAnswer, PlaybackClaims, SessionResource, TokenVerdict, TransitionRequest, UserConcurrency } from '../../schemas.ts'
import type { SlotStore } from '../concurrency/slot-store.ts'
import type { Entitlements } from '../entitlement/entitlements.ts'
import type { EventRelay } from '../event/event-relay.ts'
import type { SessionStore } from '../session/session-store.ts'
import type { PlaybackTokens, SessionIdentity } from '../token/playback-tokens.ts'
import { endedProblem, notFoundProblem } from './ended-problem.ts'
import { toEndedResource, toSessionResource, toSlotResource } from './resources.ts'

export interface LifecycleObserver {
  started: () => void
  ended: (reason: EventReason) => void
  refused: (code: string) => void
  /** A heartbeat that came too soon after the one before. */
  tooSoon: () => void
}

/** What the lifecycle orchestrates. Types only: the instances come by decorator. */
export interface LifecycleParts {
  sessions: SessionStore
  slots: SlotStore
  entitlements: Pick<Entitlements, 'decide'>
  tokens: PlaybackTokens
  events: EventRelay
  clock: RedisClock
  pulse: Pulse
  observer: LifecycleObserver
  /** Limit of users whose plan names none. */
  limit: number
  timeoutMs: number
  heartbeatMs: number
  tokenLifeMs: number
}

/** A session that a caller has been shown to own. `claims`: when it was by the session's playback token. */
export interface OwnedSession { identity: SessionIdentity, claims: PlaybackClaims | undefined }

const CLIENT_ENDINGS: ReadonlySet<string> = new Set([ENDINGS.stop.endReason, ENDINGS.complete.endReason])

/** What happens to a session between its start and its end. Callers have been authorised. */
export class Lifecycle {
  readonly #parts: LifecycleParts

  constructor (parts: LifecycleParts) {
    this.#parts = parts
  }

  /** The session if `mayUse` accepts its user; absent and foreign look the same. @throws ProblemError 404, 410. */
  async locate (sessionId: string, mayUse: (userId: string) => boolean): Promise<OwnedSession> {
    const view = await this.#parts.sessions.read(sessionId)
    if (view.state === 'absent') throw notFoundProblem()
    const identity = view.state === 'live' ? view.session : view.ended.session
    if (!mayUse(identity.userId)) throw notFoundProblem()
    return { identity, claims: undefined }
  }

  async get ({ identity }: OwnedSession): Promise<SessionResource> {
    const view = await this.#parts.sessions.read(identity.sessionId)
    if (view.state === 'live') return toSessionResource(view.session)
    throw view.state === 'ended' ? endedProblem(view.ended) : notFoundProblem()
  }

  /** Renews the session, and its token when less than half of that one's life is left. @throws ProblemError 404, 410; 429 when it comes too soon: the session lives. */
  async heartbeat ({ identity, claims }: OwnedSession, said: HeartbeatRequest): Promise<HeartbeatAnswer> {
    const { sessions, events, heartbeatMs } = this.#parts
    const renewal = await sessions.heartbeat(identity.sessionId, said.position)
    if (renewal.outcome === 'absent') throw await this.#goneProblem(identity.sessionId)
    if (renewal.outcome === 'too-soon') throw this.#tooSoonProblem(renewal.waitMs)
    events.heartbeat(identity, renewal, said)
    const answer = {
      session_id: identity.sessionId, status: renewal.status, position: said.position, last_heartbeat: renewal.heardAt, heartbeat_interval: Math.round(heartbeatMs / 1_000)
    }
    const token = this.#renewedToken(identity, claims, renewal.beatMs)
    return token === undefined ? answer : { ...answer, playback_token: token }
  }

  /** Heartbeats of many sessions, each with its own token; one result each, in order. Never throws for a single one. */
  async heartbeats (beats: ReadonlyArray<HeartbeatRequest & { playback_token: string }>): Promise<HeartbeatsAnswer['results']> {
    const { sessions, tokens, clock, events } = this.#parts
    const nowMs = clock.nowMs()
    const verdicts = beats.map(beat => tokens.verify(beat.playback_token, nowMs))
    const valid = beats.flatMap((beat, index) => {
      const verdict = verdicts[index]
      return verdict?.valid === true ? [{ index, beat, claims: verdict.claims }] : []
    })
    const results: HeartbeatsAnswer['results'] = beats.map(() => ({ status: 401, code: 'unauthorized' }))
    const renewals = await sessions.heartbeats(valid.map(({ beat, claims }) => ({ sessionId: claims.session_id, position: beat.position })))
    await Promise.all(valid.map(async ({ index, beat, claims }, at) => {
      const renewal = renewals[at]
      const identity = identityOf(claims)
      if (renewal === undefined || renewal instanceof Error) {
        results[index] = { session_id: identity.sessionId, ...failed(storeProblem(renewal) ?? renewal) }
      } else if (renewal.outcome === 'absent') {
        const problem = await this.#goneProblem(identity.sessionId).catch((error: unknown) => storeProblem(error) ?? error)
        results[index] = { session_id: identity.sessionId, ...failed(problem) }
      } else if (renewal.outcome === 'too-soon') {
        results[index] = { session_id: identity.sessionId, ...failed(this.#tooSoonProblem(renewal.waitMs)) }
      } else {
        events.heartbeat(identity, renewal, beat)
        const token = this.#renewedToken(identity, claims, renewal.beatMs)
        results[index] = { status: 200, session_id: identity.sessionId, position: beat.position, ...(token === undefined ? {} : { playback_token: token }) }
      }
    }))
    return results
  }

  /** @throws ProblemError 409 when the session is in that state already; 404, 410. */
  async changeStatus ({ identity }: OwnedSession, status: LiveStatus, request: TransitionRequest): Promise<SessionResource> {
    const change = await this.#parts.sessions.changeStatus(identity.sessionId, status, clientState(request))
    if (change.outcome === 'absent') throw await this.#goneProblem(identity.sessionId)
    if (change.outcome === 'unchanged') {
      throw new ProblemError('illegal-transition', `The session is ${change.session.status} already.`, { extensions: { session_status: change.session.status } })
    }
    this.#parts.events.publish([change.event])
    return toSessionResource(change.session)
  }

  /** Ends the session. Repeated after an ending by its client it answers that ending. @throws ProblemError 404; 410 when it ended otherwise. */
  async end ({ identity, claims }: OwnedSession, cause: EndCause, request: TransitionRequest): Promise<SessionResource> {
    const ending = await this.#end(identity, cause, request, claims?.device_id)
    if (ending === undefined) throw notFoundProblem()
    if (!CLIENT_ENDINGS.has(ending.endReason)) throw endedProblem(ending)
    return toEndedResource(ending)
  }

  /** Ends every session of a user (sign out everywhere); answers how many this call ended. */
  async endAll (userId: string): Promise<number> {
    const { sessions } = await this.#parts.slots.list(userId)
    const endings = await Promise.all(sessions.map(async session =>
      await this.#parts.sessions.end(session.sessionId, userId, 'termination', { position: undefined, metadata: '' }, undefined)))
    let ended = 0
    for (const ending of endings) {
      if (ending.outcome !== 'ended') continue
      ended++
      this.#parts.events.publish([ending.event])
      this.#parts.observer.ended('terminated')
    }
    return ended
  }

  /** The user's slots and who holds them. */
  async concurrency (userId: string): Promise<UserConcurrency> {
    const { slots, limit, timeoutMs } = this.#parts
    const { active, sessions } = await slots.list(userId)
    const newest = sessions.at(-1)
    const inForce = newest?.limit ?? limit
    return {
      user_id: userId,
      limit: inForce,
      limit_source: newest?.limitSource ?? 'default',
      active,
      available: Math.max(0, inForce - active),
      sessions: sessions.map(session => toSlotResource(session, timeoutMs))
    }
  }

  /** One verdict for each token, in order. `live`: also whether its session lives, one small read each. @throws Redis errors. */
  async validate (tokens: readonly string[], live: boolean): Promise<TokenVerdict[]> {
    const { clock, sessions, timeoutMs, pulse } = this.#parts
    const nowMs = clock.nowMs()
    const verdicts = tokens.map((token): TokenVerdict => this.#parts.tokens.verify(token, nowMs))
    if (!live) return verdicts
    const claimed = verdicts.flatMap(({ claims }, index) => claims === undefined ? [] : [{ index, claims }])
    const beats = await sessions.beats(claimed.map(({ claims }) => claims.session_id))
    for (const [at, { index, claims }] of claimed.entries()) {
      const beat = beats[at]
      if (beat instanceof Error) throw beat
      if (beat === undefined) verdicts[index] = { valid: false, reason: 'ended' }
      else if (beat + timeoutMs <= nowMs && nowMs >= await pulse.graceUntilMs(slotOf(claims.session_id))) verdicts[index] = { valid: false, reason: 'lapsed' }
    }
    return verdicts
  }

  /** What a valid playback token says. @throws ProblemError 401. */
  claimsOf (token: string): PlaybackClaims {
    const verdict = this.#parts.tokens.verify(token, this.#parts.clock.nowMs())
    if (!verdict.valid) throw new ProblemError('unauthorized', 'A valid playback token is required.')
    return verdict.claims
  }

  /** A new token for a live session, for the holder of a valid one. @throws ProblemError 404, 410. */
  async refresh (claims: PlaybackClaims): Promise<{ playback_token: string, token_expires_at: string }> {
    const { tokens, clock, sessions } = this.#parts
    const nowMs = clock.nowMs()
    const view = await sessions.read(claims.session_id)
    if (view.state !== 'live') throw view.state === 'ended' ? endedProblem(view.ended) : notFoundProblem()
    const issued = tokens.issue(view.session, nowMs)
    return { playback_token: issued.token, token_expires_at: new Date(issued.expiresAtMs).toISOString() }
  }

  async #end (identity: SessionIdentity, cause: EndCause, request: TransitionRequest, endedBy: string | undefined): Promise<EndedRecord | undefined> {
    const { sessions, events, observer } = this.#parts
    const ending = await sessions.end(identity.sessionId, identity.userId, cause, clientState(request), endedBy)
    if (ending.outcome === 'absent') return undefined
    if (ending.outcome === 'ended') {
      events.publish([ending.event])
      observer.ended(ENDINGS[cause].reason)
    }
    return ending.ended
  }

  /** `nowMs`: Redis' time of the heartbeat. */
  #renewedToken (identity: SessionIdentity, claims: PlaybackClaims | undefined, nowMs: number): string | undefined {
    const { tokens } = this.#parts
    return claims !== undefined && tokens.needsRenewal(claims, nowMs) ? tokens.issue(identity, nowMs).token : undefined
  }

  #tooSoonProblem (waitMs: number): ProblemError {
    this.#parts.observer.tooSoon()
    return new ProblemError('too-many-heartbeats', 'The session lives; its last heartbeat was a moment ago.', { retryAfterSeconds: Math.ceil(waitMs / 1_000) })
  }

  /** 410 for a session that has ended, 404 for one that never was or is forgotten. One read, only on this rare path. */
  async #goneProblem (sessionId: string): Promise<ProblemError> {
    const view = await this.#parts.sessions.read(sessionId)
    return view.state === 'ended' ? endedProblem(view.ended) : notFoundProblem()
  }
}

/** Who a playback token speaks for. */
export function identityOf (claims: PlaybackClaims): SessionIdentity {
  return { sessionId: claims.session_id, userId: claims.user_id, profileId: claims.profile_id, contentId: claims.content_id, deviceId: claims.device_id }
}

function clientState ({ position, metadata }: TransitionRequest): { position: number | undefined, metadata: string } {
  return { position, metadata: metadata === undefined ? '' : JSON.stringify(metadata) }
}

function failed (problem: unknown): { status: number, code: string, reason?: string } {
  if (!(problem instanceof ProblemError)) return { status: 500, code: 'internal-error' }
  const { reason } = problem.extensions
  return { status: problem.statusCode, code: problem.code, ...(typeof reason === 'string' ? { reason } : {}) }
}
