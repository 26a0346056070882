import { LRUCache } from 'lru-cache'
import type { Knowledge } from './answers.ts'
import type { UpstreamName } from './guarded-call.ts'

/** Where an answer came from, for metrics: `asked` includes joining a call that was already running; `none`: nowhere. */
export interface LookupReport { upstream: UpstreamName, source: 'fresh' | 'asked' | 'stale' | 'none' }

interface Lookup<T> { source: LookupReport['source'], knowledge: Knowledge<T> }

export interface VerdictCacheOptions<T> {
  upstream: UpstreamName
  call: (query: Record<string, string>) => Promise<Knowledge<T>>
  /** Age up to which a yes is used without asking, ms. */
  freshMs: number
  /** Age up to which a yes is used when asking failed, ms. */
  staleMs: number
  maxEntries: number
  /** Monotonic time, ms. */
  clock: () => number
  onLookup?: (lookup: LookupReport) => void
}

/**
 * Remembers every yes for a while and no no at all, and asks each question once however many wait for it.
 *
 * One question has at most one call running, so an older yes can never overwrite a newer no.
 */
export class VerdictCache<T> {
  readonly #options: VerdictCacheOptions<T>
  readonly #granted: LRUCache<string, { value: T, atMs: number }>
  readonly #running = new Map<string, Promise<Lookup<T>>>()

  constructor (options: VerdictCacheOptions<T>) {
    this.#options = options
    this.#granted = new LRUCache({ max: options.maxEntries })
  }

  /** The answer to the question of these values. */
  async ask (query: Record<string, string>): Promise<Knowledge<T>> {
    const { upstream, freshMs, onLookup } = this.#options
    // No value can hold a NUL, so two questions never share a key.
    const key = Object.values(query).join('\0')
    const granted = this.#grantedWithin(freshMs, key)
    if (granted !== undefined) {
      onLookup?.({ upstream, source: 'fresh' })
      return granted
    }
    let running = this.#running.get(key)
    if (running === undefined) {
      running = this.#fetch(key, query)
      this.#running.set(key, running)
    }
    const { source, knowledge } = await running
    onLookup?.({ upstream, source })
    return knowledge
  }

  async #fetch (key: string, query: Record<string, string>): Promise<Lookup<T>> {
    try {
      const { call, clock, staleMs } = this.#options
      const knowledge = await call(query)
      if (knowledge.answer === 'unknown') {
        const granted = this.#grantedWithin(staleMs, key)
        return granted === undefined ? { source: 'none', knowledge } : { source: 'stale', knowledge: granted }
      }
      if (knowledge.answer === 'yes') this.#granted.set(key, { value: knowledge.value, atMs: clock() })
      else this.#granted.delete(key)
      return { source: 'asked', knowledge }
    } finally {
      this.#running.delete(key)
    }
  }

  #grantedWithin (ageMs: number, key: string): Knowledge<T> | undefined {
    const entry = this.#granted.get(key)
    if (entry === undefined || this.#options.clock() - entry.atMs >= ageMs) return undefined
    return { answer: 'yes', value: entry.value }
  }
}
