import client from '@prometheus-io/client'

interface Tally { labels: Record<string, string>, counts: number[], sum: number, count: number }

/**
 * The histogram of request durations, counted into plain numbers that each route holds on to. `observe` of the library looks its labels up
 * anew every time, and the plugin's timers hang on a WeakMap that the garbage collector has to walk: together 8 % of a heartbeat.
 */
export class RouteDurations extends client.Histogram<'method' | 'route' | 'status_code'> {
  readonly #name: string
  readonly #help: string
  readonly #bounds: readonly number[]
  readonly #tallies: Tally[] = []

  /** `bounds`: upper bounds of the buckets, seconds, rising. */
  constructor (name: string, help: string, bounds: readonly number[]) {
    super({ name, help, labelNames: ['method', 'route', 'status_code'], buckets: [...bounds] })
    this.#name = name
    this.#help = help
    this.#bounds = bounds
  }

  /** A counter for one route; it takes a status code and seconds. */
  forRoute (method: string, route: string): (statusCode: number, seconds: number) => void {
    const byStatus = new Map<number, Tally>()
    return (statusCode, seconds) => {
      let tally = byStatus.get(statusCode)
      if (tally === undefined) {
        tally = { labels: { method, route, status_code: String(statusCode) }, counts: this.#bounds.map(() => 0), sum: 0, count: 0 }
        byStatus.set(statusCode, tally)
        this.#tallies.push(tally)
      }
      tally.sum += seconds
      tally.count++
      let at = 0
      while (at < this.#bounds.length && seconds > (this.#bounds[at] ?? 0)) at++
      if (at < this.#bounds.length) tally.counts[at] = (tally.counts[at] ?? 0) + 1
    }
  }

  override async get () {
    const value = (suffix: string, labels: Record<string, string | number>, value: number) => ({ metricName: `${this.#name}_${suffix}`, labels, sharedLabels: {}, value })
    const values = this.#tallies.flatMap(({ labels, counts, sum, count }) => {
      let below = 0
      return [
        ...this.#bounds.map((le, at) => {
          below += counts[at] ?? 0
          return value('bucket', { le, ...labels }, below)
        }),
        value('bucket', { le: '+Inf', ...labels }, count),
        value('sum', labels, sum),
        value('count', labels, count)
      ]
    })
    return { name: this.#name, help: this.#help, type: 'histogram' as const, aggregator: 'sum' as const, collect: () => { /* counted as it happens */ }, values }
  }

  /** What the text format is made of. */
  async getForPromString () {
    return await this.get()
  }
}
