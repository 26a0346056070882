import { setTimeout as sleep } from 'node:timers/promises'
import type { Producer } from 'kafkajs'

export interface KafkaRecord { key: string, value: string, headers: Record<string, string> }

type Send = Producer['send']

export interface PartitionQueueOptions {
  topic: string
  partition: number
  send: Send
  /** Makes a new producer, after which sending starts over. */
  renew: () => Promise<void>
}

/** Records that were added together are answered together. */
interface Ticket { open: number, resolve: () => void, reject: (error: Error) => void }
interface Waiting { record: KafkaRecord, ticket: Ticket }

/** kafkajs has no linger. One record per request: 10k/s; a thousand: 116k/s (measured). */
const LINGER_MS = 5
const MAX_COUNT = 1_000
const MAX_BYTES = 512 * 1024
const RETRY_MS = 250

/**
 * The records of one partition, in order, with one request in flight. A request is repeated until it is acknowledged or the
 * queue is closed: what comes later waits, so the order in the partition is the order of `add`.
 */
export class PartitionQueue {
  readonly #options: PartitionQueueOptions
  #waiting: Waiting[] = []
  #sending: Waiting[] = []
  #running = false
  #sendingSince: number | undefined
  #closed = false

  constructor (options: PartitionQueueOptions) {
    this.#options = options
  }

  /** Settles when Kafka has acknowledged the records, on all in-sync replicas. */
  async add (records: readonly KafkaRecord[]): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      if (this.#closed) {
        reject(new Error('the event sink is closed'))
        return
      }
      const ticket: Ticket = { open: records.length, resolve, reject }
      for (const record of records) this.#waiting.push({ record, ticket })
      if (!this.#running) {
        this.#running = true
        setTimeout(() => { this.#run().catch(() => { /* every record is answered inside */ }) }, LINGER_MS)
      }
    })
  }

  /** How long the request in flight has been waiting for its acknowledgement, ms; 0 when none is. */
  stalledMs (): number {
    return this.#sendingSince === undefined ? 0 : performance.now() - this.#sendingSince
  }

  /** Nothing is waited for any more: a request to a broker that is away may never settle. */
  close (): void {
    this.#closed = true
    for (const { ticket } of [...this.#sending, ...this.#waiting.splice(0)]) ticket.reject(new Error('the event sink is closed'))
  }

  async #run (): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#sending = this.#take()
      const acknowledged = await this.#deliver(batch.map(({ record }) => record))
      for (const { ticket } of batch) {
        if (!acknowledged) ticket.reject(new Error('the event sink is closed'))
        else if (--ticket.open === 0) ticket.resolve()
      }
    }
    this.#sending = []
    this.#running = false
  }

  #take (): Waiting[] {
    let bytes = 0
    let count = 0
    while (count < Math.min(this.#waiting.length, MAX_COUNT) && bytes < MAX_BYTES) bytes += this.#waiting[count++]?.record.value.length ?? 0
    return this.#waiting.splice(0, count)
  }

  /** True once the batch is acknowledged; false when the queue was closed before. */
  async #deliver (records: KafkaRecord[]): Promise<boolean> {
    const { topic, partition, send, renew } = this.#options
    this.#sendingSince = performance.now()
    try {
      for (;;) {
        try {
          const answer = await send({ topic, acks: -1, messages: records.map(record => ({ ...record, partition })) })
          const [only] = answer
          if (answer.length === 1 && only?.partition === partition && only.errorCode === 0) return true
          throw new Error('Kafka acknowledged another partition than the one written to')
        } catch (error) {
          if (this.#closed) return false
          if (isBroken(error)) await renew().catch(() => { /* tried again at the next failure */ })
          await sleep(RETRY_MS, undefined, { ref: false })
        }
      }
    } finally {
      this.#sendingSince = undefined
    }
  }
}

/** Errors after which an idempotent producer is stuck for good. Repeats are dropped by consumers, by `event_id`. */
function isBroken (error: unknown): boolean {
  const type = error instanceof Error && 'type' in error ? error.type : undefined
  return type === 'OUT_OF_ORDER_SEQUENCE_NUMBER' || type === 'UNKNOWN_PRODUCER_ID' || type === 'INVALID_PRODUCER_EPOCH' ||
    (error instanceof Error && /sequence number|producer epoch|disconnected|not connected/i.test(error.message))
}
