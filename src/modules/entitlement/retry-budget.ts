/**
 * Keeps retries to a share of the calls, so that they heal single faults and cannot double the load on a service that is already failing.
 * A token bucket: each call puts in a share of a token, each retry takes a whole one.
 */
export class RetryBudget {
  readonly #share: number
  readonly #capacity: number
  #tokens: number

  /** @param initial lets a service that has just begun to ask retry at all; `capacity` bounds the burst after a quiet hour. */
  constructor ({ share = 0.1, initial = 2, capacity = 10 }: { share?: number, initial?: number, capacity?: number } = {}) {
    this.#share = share
    this.#capacity = capacity
    this.#tokens = initial
  }

  /** Counts one call that is not a retry. */
  deposit (): void {
    this.#tokens = Math.min(this.#capacity, this.#tokens + this.#share)
  }

  /** Takes a token; false if there is none. */
  withdraw (): boolean {
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }
}
