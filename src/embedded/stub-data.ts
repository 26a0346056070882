/** What the stub identity and content services know; for demonstrations and the examples in the README. */

export interface StubUser {
  userId: string
  plan: string
  entitled: boolean
  /** Concurrent streams of the plan; undefined: the plan names none, so the service's default counts. */
  maxStreams?: number
  /** Why not, for users who are not entitled. */
  reason?: string
}

export interface StubTitle {
  contentId: string
  title: string
  /** ISO 3166-1 alpha-2; undefined: everywhere. */
  regions?: readonly string[]
  /** Why not, for titles that are available nowhere. */
  blocked?: string
}

/** Anyone else is entitled, by a plan that names no limit. */
export const STUB_USERS: readonly StubUser[] = [
  { userId: 'user123', plan: 'standard', entitled: true, maxStreams: 3 },
  { userId: 'user-basic', plan: 'basic', entitled: true, maxStreams: 1 },
  { userId: 'user-premium', plan: 'premium', entitled: true, maxStreams: 5 },
  { userId: 'user-blocked', plan: 'standard', entitled: false, reason: 'subscription_lapsed' }
]

/** Anything else is available everywhere. */
export const STUB_TITLES: readonly StubTitle[] = [
  { contentId: 'content789', title: 'Available everywhere' },
  { contentId: 'content-us-only', title: 'Available in the US only', regions: ['US'] },
  { contentId: 'content-blocked', title: 'Available nowhere', blocked: 'blocked' }
]

/** Reason given for a title that is not licensed in the region asked for. */
export const STUB_REGION_REASON = 'not_in_region'
