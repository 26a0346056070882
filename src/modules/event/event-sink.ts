import type { PlaybackEvent } from '../../schemas.ts'

/** Where playback events go. */
export interface EventSink {
  /** `headers` go beside the event, where the sink has such a place. Settles once the event is safe there; rejects if it is not, and then the event stays in the outbox. */
  send: (event: PlaybackEvent, headers?: Readonly<Record<string, string>>) => Promise<void>
  /** Whether sending makes sense now; while not, lifecycle events wait in the outbox and heartbeat events are dropped. */
  ready: () => boolean
  close: () => Promise<void>
}

/** Writes one line of text; the newline is the sink's. */
export type WriteLine = (line: string) => void

/**
 * The sink without a broker: one JSON line per event on a stream of its own. They are the only lines of the service that
 * hold user and device ids; `stream: event` tells them apart.
 */
export class LogSink implements EventSink {
  readonly #write: WriteLine

  constructor (write: WriteLine) {
    this.#write = write
  }

  async send (event: PlaybackEvent): Promise<void> {
    this.#write(`${JSON.stringify({ level: 30, time: Date.now(), stream: 'event', msg: `LOG ${event.event_type}`, event })}\n`)
  }

  ready (): boolean {
    return true
  }

  async close (): Promise<void> { /* the stream belongs to the process */ }
}
