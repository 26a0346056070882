/**
 * The one catalogue of what can go wrong, as RFC 9457 problem types.
 *
 * `code` is stable and what clients switch on; `title` never changes for a code; `detail` is for people and may.
 */
export const PROBLEMS = {
  'bad-request': { status: 400, title: 'The request is malformed' },
  'validation-failed': { status: 400, title: 'The request does not match the schema' },
  'credential-unverifiable': { status: 503, title: 'The credential cannot be verified now' },
  unauthorized: { status: 401, title: 'No valid credential' },
  forbidden: { status: 403, title: 'The credential does not allow this' },
  'not-entitled': { status: 403, title: 'The user is not entitled to this content' },
  'content-unavailable': { status: 403, title: 'The content is not available here' },
  'session-not-found': { status: 404, title: 'No such session' },
  'route-not-found': { status: 404, title: 'No such resource' },
  'method-not-allowed': { status: 405, title: 'The resource does not support this method' },
  'request-timeout': { status: 408, title: 'The request took too long to arrive' },
  'concurrency-limit-reached': { status: 409, title: 'The concurrent-stream limit is reached' },
  'illegal-transition': { status: 409, title: 'The session is already in this state' },
  'session-ended': { status: 410, title: 'The session has ended' },
  'payload-too-large': { status: 413, title: 'The request body is too large' },
  'uri-too-long': { status: 414, title: 'The request target is too long' },
  'unsupported-media-type': { status: 415, title: 'The content type is not supported' },
  'idempotency-key-reused': { status: 422, title: 'The Idempotency-Key belongs to another request' },
  'rate-limited': { status: 429, title: 'The user asks too often' },
  'too-many-heartbeats': { status: 429, title: 'The session lives; the heartbeat came too soon after the one before' },
  'headers-too-large': { status: 431, title: 'The request headers are too large' },
  'internal-error': { status: 500, title: 'Internal error' },
  overloaded: { status: 503, title: 'The service is overloaded' },
  'store-unavailable': { status: 503, title: 'The session store cannot answer now' },
  'store-full': { status: 503, title: 'The session store is full' },
  'admission-contended': { status: 503, title: 'Too many concurrent starts of this user' },
  'admission-unconfirmed': { status: 503, title: 'The admission could not be confirmed by a replica' },
  'entitlement-unknown': { status: 503, title: 'The entitlement cannot be determined now' },
  'availability-unknown': { status: 503, title: 'The availability cannot be determined now' },
  'writer-unreachable': { status: 503, title: 'The region that takes writes cannot be reached now' },
  'no-writer': { status: 503, title: 'No region takes writes now' },
} as const satisfies Record<string, { status: number, title: string }>

export type ProblemCode = keyof typeof PROBLEMS

export interface ProblemOptions {
  /** Whole seconds for the `Retry-After` header. */
  retryAfterSeconds?: number
  /** RFC 9457 extension members, already in wire form (snake_case). */
  extensions?: Record<string, unknown>
  cause?: unknown
}

/** A request that ends in a problem document. Thrown by modules and routes, rendered only by `plugins/problem-details.ts`. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError'
  readonly code: ProblemCode
  readonly statusCode: number
  readonly retryAfterSeconds: number | undefined
  readonly extensions: Record<string, unknown>

  /** @param detail one sentence for the caller; it must never hold a credential or a value the caller sent. */
  constructor (code: ProblemCode, detail: string, options: ProblemOptions = {}) {
    super(detail, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.statusCode = PROBLEMS[code].status
    this.retryAfterSeconds = options.retryAfterSeconds
    this.extensions = options.extensions ?? {}
  }
}
