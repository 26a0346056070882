import { type Grant, type Knowledge, readAvailability, readEntitlement } from './answers.ts'
import { type CallReport, GuardedCall, type TransportAnswer, type UpstreamName } from './guarded-call.ts'
import { type LookupReport, VerdictCache } from './verdict-cache.ts'

/** May this profile of this user play this content in this region (ISO 3166-1 alpha-2)? */
export interface Question { userId: string, profileId: string, contentId: string, region: string }

export type Decision =
  /** `limit`: concurrent streams of the user's plan; undefined if the plan names none. */
  | { outcome: 'granted', limit: number | undefined }
  /** `reason`: the service's own word, safe to show: one line of at most 200 characters. */
  | { outcome: 'not-entitled', reason: string | undefined }
  | { outcome: 'content-unavailable', reason: string | undefined }
  | { outcome: 'unknown', about: 'entitlement' | 'availability', retryAfterSeconds: number }

export type Ask = (path: string, query: Record<string, string>, signal: AbortSignal) => Promise<TransportAnswer>

export interface EntitlementsOptions {
  askIdentity: Ask
  askContent: Ask
  /** Longest time one question may take, retry included, ms. */
  deadlineMs: number
  /** Age up to which a yes is reused, ms. */
  freshMs: number
  /** Age up to which a yes is used while its service fails, ms. */
  staleMs: number
  /** Remembered answers per service. Default 50,000. */
  maxEntries?: number
  /** Monotonic time, ms. */
  clock?: () => number
  /** Uniform in [0, 1). */
  random?: () => number
  onCall?: (call: CallReport) => void
  onLookup?: (lookup: LookupReport) => void
  /** Told when a service is given up for a while, and when it is used again. */
  onCircuit?: (change: { upstream: UpstreamName, open: boolean, reason: string }) => void
}

const ENTITLEMENT_PATH = '/api/entitlement/validate'
const AVAILABILITY_PATH = '/api/content/availability'
const MAX_ENTRIES = 50_000
/** Players that were refused together come back spread over this many seconds. */
const RETRY_AFTER_SPREAD_SECONDS = 3

/** Decides from what the identity and the content service say. A yes of both is needed; nothing is ever assumed. */
export class Entitlements {
  readonly #entitlement: VerdictCache<Grant>
  readonly #availability: VerdictCache<true>
  readonly #random: () => number

  constructor (options: EntitlementsOptions) {
    const { askIdentity, askContent, maxEntries = MAX_ENTRIES, clock = () => performance.now(), random = Math.random } = options
    const common = { ...options, maxEntries, clock, random }
    const entitlement = new GuardedCall({
      ...common,
      upstream: 'identity',
      ask: (query, signal) => askIdentity(ENTITLEMENT_PATH, query, signal),
      read: readEntitlement
    })
    const availability = new GuardedCall({
      ...common,
      upstream: 'content',
      ask: (query, signal) => askContent(AVAILABILITY_PATH, query, signal),
      read: readAvailability
    })
    this.#entitlement = new VerdictCache({ ...common, upstream: 'identity', call: query => entitlement.call(query) })
    this.#availability = new VerdictCache({ ...common, upstream: 'content', call: query => availability.call(query) })
    this.#random = random
  }

  /**
   * Asks both services side by side and settles within the deadline.
   *
   * | identity | content | decision |
   * |---|---|---|
   * | no | anything | not-entitled, without waiting for the content service |
   * | yes or unknown | no | content-unavailable |
   * | unknown | yes or unknown | unknown, about the entitlement |
   * | yes | unknown | unknown, about the availability |
   * | yes | yes | granted |
   */
  async decide ({ userId, profileId, contentId, region }: Question): Promise<Decision> {
    const entitling = this.#entitlement.ask({ userID: userId, profileID: profileId, contentID: contentId })
    const availing = this.#availability.ask({ contentID: contentId, region })
    // After a no of the identity service nobody awaits this one; a fault in it must not bring the process down.
    availing.catch(() => {})

    const entitlement = await entitling
    if (entitlement.answer === 'no') return { outcome: 'not-entitled', reason: entitlement.reason }
    const availability = await availing
    if (availability.answer === 'no') return { outcome: 'content-unavailable', reason: availability.reason }
    if (entitlement.answer === 'unknown') return this.#unknown('entitlement', entitlement, availability)
    if (availability.answer === 'unknown') return this.#unknown('availability', availability)
    return { outcome: 'granted', limit: entitlement.value.limit }
  }

  #unknown (about: 'entitlement' | 'availability', ...knowledge: Array<Knowledge<unknown>>): Decision {
    const longestMs = Math.max(...knowledge.map(item => item.answer === 'unknown' ? item.retryAfterMs : 0))
    const spread = 1 + Math.floor(this.#random() * RETRY_AFTER_SPREAD_SECONDS)
    return { outcome: 'unknown', about, retryAfterSeconds: Math.ceil(longestMs / 1_000) + spread }
  }
}
