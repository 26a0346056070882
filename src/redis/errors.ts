import { ProblemError } from '../problems.ts'

/** Words Redis or ioredis begin an error with when the store is away, changing hands or loading: try again soon. */
const AWAY = /^(MOVED|ASK|TRYAGAIN|CLUSTERDOWN|LOADING|MASTERDOWN|READONLY|NOREPLICAS|BUSY|NOSCRIPT|NOAUTH|WRONGPASS|NOPERM|MISCONF|UNKILLABLE)\b/
const CLIENT_AWAY = /(Command timed out|Connection is closed|Stream isn't writeable|Cluster isn't ready|Too many Cluster redirections|Failed to refresh slots cache|None of startup nodes is available|All sentinels are unreachable|connect ETIMEDOUT|Socket closed|max number of clients)/
const CLIENT_NAMES = new Set(['MaxRetriesPerRequestError', 'ClusterAllFailedError', 'AbortError'])
const SYSTEM_CODES = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EHOSTUNREACH', 'EAI_AGAIN', 'ENETUNREACH'])

/**
 * The problem a failed Redis command means to the caller, or undefined if it is no outage but a fault of ours.
 * A refused or timed-out command says nothing about whether it ran; the same call may be repeated.
 */
export function storeProblem (error: unknown): ProblemError | undefined {
  if (!(error instanceof Error)) return undefined
  if (/^OOM\b/.test(error.message)) {
    return new ProblemError('store-full', 'The session store takes no new sessions now.', { retryAfterSeconds: 5, cause: error })
  }
  const code = 'code' in error ? error.code : undefined
  if (AWAY.test(error.message) || CLIENT_AWAY.test(error.message) || CLIENT_NAMES.has(error.name) || (typeof code === 'string' && SYSTEM_CODES.has(code))) {
    return new ProblemError('store-unavailable', 'The session store did not answer; the same request may be repeated.', { retryAfterSeconds: 1, cause: error })
  }
  return undefined
}
