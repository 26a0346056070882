import type { FastifyBaseLogger } from 'fastify'
import type { Following } from '../../redis/monitor.ts'
import type { Store } from '../redis.ts'

/** A replica whose connection is gone is out of date from then on. */
const DISCONNECTED_SECONDS = 3
/** A connected one may hear nothing for as long as its idle master waits between two pings (`repl-ping-replica-period`, 10 s). */
const SILENT_SECONDS = 12
/** Requests may make us look again, but not more often than this. */
const LOOK_AGAIN_MS = 100

/**
 * Whether this instance writes to its own Redis. Nothing is configured: it looks at what its Redis is. A master that takes our writes makes a
 * writer; everything else (a replica, a fenced master, a Redis never seen) makes a reader. So no instance writes without proof that it may.
 */
export class RegionRole {
  readonly #store: Store
  readonly #log: FastifyBaseLogger
  #reading = true
  /** Since it last was a writer, or its start, it has been told that it is none: Redis has changed hands when it becomes one. */
  #handedOver = false
  #following: Following | undefined
  #fresh = false
  #looking: Promise<void> | undefined
  #lookedAt = -Infinity

  constructor (store: Store, log: FastifyBaseLogger) {
    this.#store = store
    this.#log = log
    store.pulse.suspended = true
  }

  get reading (): boolean {
    return this.#reading
  }

  /** Whether a reader may answer from its own Redis. */
  get fresh (): boolean {
    return this.#fresh
  }

  /** How long the replica has heard nothing from its master; 0 for a writer, Infinity while nothing is known. */
  get silentSeconds (): number {
    return this.#reading ? this.#following?.silentSeconds ?? Infinity : 0
  }

  async look (): Promise<void> {
    this.#looking ??= this.#judge().finally(() => {
      this.#looking = undefined
      this.#lookedAt = performance.now()
    })
    await this.#looking
  }

  /** A request has reason to believe that roles have changed. */
  async lookAgain (): Promise<void> {
    if (performance.now() - this.#lookedAt > LOOK_AGAIN_MS) await this.look()
  }

  /** Redis refused a write of ours: from this moment on we are no writer. */
  refused (): void {
    if (this.#reading) return
    this.#read('Redis takes no writes any more')
    this.look().catch(error => { this.#log.error({ err: error }, 'Redis inspection failed') })
  }

  async #judge (): Promise<void> {
    const { reachable, following } = await this.#store.inspect()
    if (!reachable) {
      this.#fresh = false
      return
    }
    if (following !== undefined) {
      if (!this.#reading || !this.#handedOver) this.#read('Redis is a replica of another region\'s')
      this.#following = following
      this.#fresh = following.silentSeconds <= (following.connected ? SILENT_SECONDS : DISCONNECTED_SECONDS)
      // A reader runs no script that brings Redis' time along.
      const time = await this.#store.client.time().catch(() => undefined)
      if (time !== undefined) this.#store.clock.observe(Number(time[0]) * 1_000 + Number(time[1]) / 1_000)
      return
    }
    this.#following = undefined
    this.#fresh = false
    if (!this.#reading || !await this.#store.pulse.resume({ grace: this.#handedOver })) return
    this.#reading = false
    this.#log.info({ grace: this.#handedOver }, 'this region takes writes')
    this.#handedOver = false
  }

  #read (why: string): void {
    this.#reading = true
    this.#handedOver = true
    this.#fresh = false
    this.#store.pulse.suspended = true
    this.#log.warn({ why }, 'this region forwards writes')
  }
}
