import type { PlaybackEvent } from '../../schemas.ts'
import { eventJson } from './playback-event.ts'

/** Where playback events go. */
export interface EventSink {
  /** How long heartbeat events are gathered for one `send`, ms. */
  readonly lingerMs: number
  /**
   * Settles once all of them are safe there; rejects if one is not, and then they stay in the outbox.
   * `headers` go beside each event, where the sink has such a place.
   */
  send: (events: readonly PlaybackEvent[], headers?: Readonly<Record<string, string>>) => Promise<void>
  /** Whether sending makes sense now; while not, lifecycle events wait in the outbox and heartbeat events are dropped. */
  ready: () => boolean
  close: () => Promise<void>
}

/** Where lines go, whole and in order. */
export interface EventLines {
  /** Takes one line, with its newline; false: it takes no more now. */
  write: (line: string) => boolean
  /** Settles once every line that was taken is safe there; rejects when one is not and will not be. */
  written: () => Promise<void>
}

export type LineFormat = 'json' | 'ecs'

/** What a line says before the event: as pino's lines, or as Elastic Common Schema wants it. */
const HEADS: Record<LineFormat, (atMs: number, type: string) => string> = {
  json: (atMs, type) => `{"level":30,"time":${atMs},"stream":"event","msg":"LOG ${type}"`,
  ecs: (atMs, type) => `{"log.level":"info","@timestamp":"${new Date(atMs).toISOString()}","ecs.version":"8.10.0","service.name":"viewing-service","stream":"event","message":"LOG ${type}"`
}

/**
 * The sink without a broker: one JSON line per event on a stream of its own. They are the only lines of the service that
 * hold user and device ids; `stream: event` tells them apart.
 */
export class LogSink implements EventSink {
  /**
   * So short that events die young: what two collections of the young find alive is moved, and waits for a major one. With 20 ms a third of all that
   * was moved under heartbeats were events.
   */
  readonly lingerMs = 1
  readonly #lines: EventLines
  readonly #head: (typeof HEADS)[LineFormat]

  constructor (lines: EventLines, format: LineFormat) {
    this.#lines = lines
    this.#head = HEADS[format]
  }

  async send (events: readonly PlaybackEvent[]): Promise<void> {
    const time = Date.now()
    for (const event of events) {
      const taken = this.#lines.write(`${this.#head(time, event.event_type)},"event":${eventJson(event)}}\n`)
      if (!taken) throw new Error('the output takes no more lines')
    }
    await this.#lines.written()
  }

  ready (): boolean {
    return true
  }

  async close (): Promise<void> { /* the stream belongs to the process */ }
}
