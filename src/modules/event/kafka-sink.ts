import { setTimeout as sleep } from 'node:timers/promises'
import { Kafka, type KafkaConfig, logLevel, Partitioners, type Producer, type SASLOptions } from 'kafkajs'
import type { PlaybackEvent } from '../../schemas.ts'
import type { EventSink } from './event-sink.ts'
import { type KafkaRecord, PartitionQueue } from './partition-queue.ts'
import { eventJson } from './playback-event.ts'

export interface KafkaSinkOptions {
  brokers: readonly string[]
  topic: string
  clientId: string
  /** Authorities beside the usual ones come from NODE_EXTRA_CA_CERTS. */
  tls?: boolean
  sasl?: SASLOptions | undefined
  log: Record<'debug' | 'info' | 'warn', (details: object, text: string) => void>
}

const REQUEST_MS = 3_000
const RECONNECT_MS = 1_000
/** For taking leave of a broker. */
const LEAVE_MS = 1_000
/** A send that takes longer means that Kafka is away: events then wait in the outbox, not in memory. */
const STALLED_MS = 3_000

/**
 * Events to Kafka, in the one way of using kafkajs that lost nothing when brokers were killed or paused under load: the sink
 * chooses the partition, each partition has one queue and one `send` in flight with that partition only, the answer is checked.
 * Concurrent or multi-partition sends lost 3 to 30 acknowledged records per fault, without an error.
 */
export class KafkaSink implements EventSink {
  /** A queue sends what it has as soon as its last request is acknowledged, so less here would be many small requests to each partition. */
  readonly lingerMs = 20
  readonly #options: KafkaSinkOptions
  readonly #kafka: Kafka
  readonly #partitioner = Partitioners.DefaultPartitioner()
  #producer: Producer | undefined
  #queues: PartitionQueue[] = []
  #partitions: Parameters<ReturnType<typeof Partitioners.DefaultPartitioner>>[0]['partitionMetadata'] = []
  #closed = false
  #stalled = false

  /** Connects in the background: a service starts without Kafka. */
  constructor (options: KafkaSinkOptions) {
    this.#options = options
    this.#kafka = new Kafka(clientConfig(options))
    this.#connect().catch(() => { /* it catches by itself */ })
  }

  ready (): boolean {
    if (this.#queues.length === 0) return false
    const stalled = this.#queues.some(queue => queue.stalledMs() > STALLED_MS)
    if (stalled !== this.#stalled) {
      this.#stalled = stalled
      const { log, topic } = this.#options
      if (stalled) log.warn({ topic }, 'Kafka does not acknowledge; events wait in the outbox')
      else log.info({ topic }, 'Kafka acknowledges again')
    }
    return !stalled
  }

  async send (events: readonly PlaybackEvent[], headers: Readonly<Record<string, string>> = {}): Promise<void> {
    const byPartition = new Map<number, KafkaRecord[]>()
    for (const event of events) {
      const partition = this.#partitionOf(event.session_id)
      const records = byPartition.get(partition)
      if (records === undefined) byPartition.set(partition, [toRecord(event, headers)])
      else records.push(toRecord(event, headers))
    }
    await Promise.all([...byPartition].map(async ([partition, records]) => {
      const queue = this.#queues[partition]
      if (queue === undefined) throw new Error('Kafka is not connected')
      await queue.add(records)
    }))
  }

  async close (): Promise<void> {
    this.#closed = true
    for (const queue of this.#queues) queue.close()
    // Kafka may be away, and then this may take for ever.
    await Promise.race([this.#producer?.disconnect().catch(() => { /* it is given up anyway */ }), sleep(LEAVE_MS, undefined, { ref: false })])
  }

  /** Kafka's default: murmur2 of the key, so that any other producer of the platform would choose the same. */
  #partitionOf (key: string): number {
    return this.#partitioner({ topic: this.#options.topic, partitionMetadata: this.#partitions, message: { key, value: null } })
  }

  async #connect (): Promise<void> {
    const { topic, log } = this.#options
    for (let attempt = 1; !this.#closed; attempt++) {
      try {
        const partitions = await this.#countPartitions()
        if (this.#closed) return
        await this.#renewProducer()
        this.#queues = Array.from({ length: partitions }, (_, partition) => new PartitionQueue({
          topic, partition, send: async request => await this.#send(request), renew: async () => { await this.#renewProducer() }
        }))
        this.#partitions = this.#queues.map((_, partitionId) => ({ partitionErrorCode: 0, partitionId, leader: 0, replicas: [], isr: [], offlineReplicas: [] }))
        log.info({ topic, partitions }, 'connected to Kafka')
        return
      } catch (error) {
        if (attempt === 1) log.warn({ topic, reason: error instanceof Error ? error.message : String(error) }, 'Kafka is away; events wait in the outbox')
        await sleep(RECONNECT_MS, undefined, { ref: false })
      }
    }
  }

  async #countPartitions (): Promise<number> {
    // The attempts are counted by `#connect`, which says what is wrong; kafkajs' own would go on for ever, and connects by the client's rule, not by the admin's.
    const admin = new Kafka({ ...clientConfig(this.#options), retry: { initialRetryTime: 100, retries: 1 } }).admin()
    try {
      await admin.connect()
      const { topics } = await admin.fetchTopicMetadata({ topics: [this.#options.topic] })
      const count = topics[0]?.partitions.length ?? 0
      if (count === 0) throw new Error('the topic has no partitions')
      return count
    } finally {
      await admin.disconnect().catch(() => { /* it may not have been connected */ })
    }
  }

  async #send (request: Parameters<Producer['send']>[0]) {
    if (this.#producer === undefined) throw new Error('Kafka is not connected')
    return await this.#producer.send(request)
  }

  /** A producer whose sequence numbers the broker has lost track of is of no use any more. */
  async #renewProducer (): Promise<void> {
    const old = this.#producer
    const producer = this.#kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, idempotent: true, maxInFlightRequests: 1, allowAutoTopicCreation: false })
    await producer.connect()
    this.#producer = producer
    old?.disconnect().catch(() => { /* it is given up anyway */ })
  }
}

function clientConfig ({ brokers, clientId, tls = false, sasl, log }: KafkaSinkOptions): KafkaConfig {
  return {
    clientId,
    brokers: [...brokers],
    ssl: tls,
    // A copy: the library writes into it, and the configuration is frozen.
    ...(sasl === undefined ? {} : { sasl: { ...sasl } }),
    requestTimeout: REQUEST_MS,
    connectionTimeout: REQUEST_MS,
    retry: { initialRetryTime: 100, maxRetryTime: 2_000, retries: Number.MAX_SAFE_INTEGER },
    logLevel: logLevel.WARN,
    // It reports every attempt of an outage; what operators need is said once, by `ready`.
    logCreator: () => ({ namespace, log: { message } }) => { log.debug({ namespace }, `kafkajs: ${message}`) }
  }
}

/** The value is the event alone; the CloudEvents attributes ride as headers (CloudEvents 1.0, Kafka binding, binary mode). */
function toRecord (event: PlaybackEvent, headers: Readonly<Record<string, string>>): KafkaRecord {
  return {
    key: event.session_id,
    value: eventJson(event),
    headers: {
      ...headers,
      ce_specversion: '1.0',
      ce_id: event.event_id,
      ce_type: event.event_type,
      ce_source: '/viewing-service',
      ce_time: event.timestamp,
      ce_partitionkey: event.session_id,
      'content-type': 'application/json'
    }
  }
}
