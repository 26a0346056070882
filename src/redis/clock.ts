let lastMs = NaN
let lastText = ''

/** ISO 8601 with milliseconds. Under load many requests share one millisecond, and each asks twice. */
export function isoTime (ms: number): string {
  if (ms !== lastMs) {
    lastMs = ms
    lastText = new Date(ms).toISOString()
  }
  return lastText
}

/**
 * Redis' time on this instance, from the TIME that scripts reply with. It rides on the monotonic clock, so an instance whose
 * wall clock is wrong or is set still agrees with all others on what is expired.
 */
export class RedisClock {
  #offsetMs = Date.now() - performance.now()

  /** Takes over the time of a reply that arrived just now. */
  observe (redisNowMs: number): void {
    this.#offsetMs = redisNowMs - performance.now()
  }

  /** Milliseconds since the epoch, as Redis would say; the instance's own time until Redis answered once. */
  nowMs (): number {
    return Math.floor(performance.now() + this.#offsetMs)
  }

  nowIso (): string {
    return isoTime(this.nowMs())
  }
}
