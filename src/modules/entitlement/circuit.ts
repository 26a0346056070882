import { circuitBreaker, type CircuitBreakerPolicy, CircuitState, ConsecutiveBreaker, handleWhenResult, type IBackoff, isBrokenCircuitError } from 'cockatiel'

/** The result of something a circuit guards; `failed` is what the circuit counts. */
export class Guarded<T> {
  readonly value: T
  readonly failed: boolean

  constructor (value: T, failed: boolean) {
    this.value = value
    this.failed = failed
  }
}

export interface CircuitOptions {
  /** Monotonic time, ms. */
  clock: () => number
  /** Told once when the circuit opens and once when it closes again. */
  onChange?: (open: boolean) => void
}

/** Failures in a row that open the circuit: several times what one broken connection or one restarting instance causes. */
const FAILURES = 10
/** Time between probes. A service that is back is used again after at most this and one question. */
const OPEN_MS = 5_000

/**
 * Stops asking a service that fails all the time, and lets one probe through every five seconds. Whoever comes while the probe
 * runs is refused like before it: a library breaker would make him wait for it, which a hanging service turns into a lost deadline.
 */
export class Circuit {
  readonly #policy: CircuitBreakerPolicy
  readonly #clock: () => number
  #openUntilMs = 0
  #open = false

  constructor ({ clock, onChange }: CircuitOptions) {
    this.#clock = clock
    this.#policy = circuitBreaker(handleWhenResult(result => result instanceof Guarded && result.failed), {
      breaker: new ConsecutiveBreaker(FAILURES),
      halfOpenAfter: { next: () => this.#pause() }
    })
    const change = (open: boolean) => {
      if (this.#open === open) return
      this.#open = open
      onChange?.(open)
    }
    this.#policy.onBreak(() => { change(true) })
    this.#policy.onReset(() => { change(false) })
  }

  get closed (): boolean { return this.#policy.state === CircuitState.Closed }

  /** Time until the next probe, ms; 0 while closed. */
  get remainingMs (): number { return this.closed ? 0 : Math.max(0, this.#openUntilMs - this.#clock()) }

  /** Runs the call, or returns undefined without running it. Rejects only as the call does. */
  async run<T> (call: () => Promise<Guarded<T>>): Promise<T | undefined> {
    if (this.#policy.state === CircuitState.HalfOpen) return undefined
    try {
      return (await this.#policy.execute(call)).value
    } catch (error) {
      if (isBrokenCircuitError(error)) return undefined
      throw error
    }
  }

  /**
   * The library compares the time since opening, by the wall clock, with `duration`. A clock set back would keep the circuit open
   * for hours, so the duration is all or nothing and the monotonic clock decides which.
   */
  #pause (): IBackoff<unknown> {
    const untilMs = this.#clock() + OPEN_MS
    const clock = this.#clock
    this.#openUntilMs = untilMs
    return {
      get duration () { return clock() >= untilMs ? -Infinity : Infinity },
      next: () => this.#pause()
    }
  }
}
