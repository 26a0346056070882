import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import { ProblemError } from '../problems.ts'
import { runBatch } from './batch.ts'
import { createMasterClient, type ConnectOptions } from './connect.ts'
import { Gather } from './gather.ts'
import { CreateCodes, type RedisClient } from './scripts.ts'

export type CreateReply = [code: number, nowMs: number, active: number, ...rest: string[]]
export interface CreateCall { slot: number, numberOfKeys: number, keysAndArgs: Array<string | number> }

/** `replicated`: 201 only once a replica has the session. `local`: once the master has it. `auto`: the former while a replica is connected. */
export type Durability = 'replicated' | 'local' | 'auto'

/** Longest wait for a replica, ms; without its acknowledgement the admission is unknown. */
const WAIT_MS = 100
const MOVES = 4

interface Job { call: CreateCall, resolve: (reply: CreateReply) => void, reject: (error: unknown) => void }

/** Each by itself, all in one write for each node. */
async function createAll (client: RedisClient, calls: readonly CreateCall[]): Promise<Array<CreateReply | Error>> {
  const results = await runBatch(client, calls.map(({ numberOfKeys, keysAndArgs }) => redis => redis.createSession(numberOfKeys, ...keysAndArgs)))
  return results.map(result => {
    if (!result.ok) return result.error
    return isCreateReply(result.value) ? result.value : new TypeError('create-session: unexpected reply')
  })
}

function isCreateReply (value: unknown): value is CreateReply {
  return Array.isArray(value) && value.slice(0, 3).every(item => typeof item === 'number')
}

/**
 * One connection to one master on which the admissions of an event-loop tick share one WAIT (group commit: about +0.3 ms;
 * a WAIT per request on shared connections cost up to 1.6 s at p99 around faults, because WAIT blocks its connection).
 * Script and WAIT must run on the same connection: WAIT speaks of that connection's writes on that server only.
 */
class Lane {
  readonly #client: Redis
  readonly #mustReplicate: () => boolean
  #queue: Job[] = []
  #running = false
  #epoch = 0
  readonly #connected: Promise<unknown>

  constructor (client: Redis, mustReplicate: () => boolean) {
    this.#client = client
    this.#mustReplicate = mustReplicate
    client.on('close', () => { this.#epoch++ })
    client.on('error', () => { /* each command reports its own */ })
    this.#connected = client.connect().catch(() => { /* it goes on trying; commands are refused meanwhile */ })
  }

  async run (call: CreateCall): Promise<CreateReply> {
    await this.#connected
    return await new Promise((resolve, reject) => {
      this.#queue.push({ call, resolve, reject })
      if (!this.#running) {
        this.#running = true
        setImmediate(() => { this.#drain().catch(() => { /* every job is answered by then */ }) })
      }
    })
  }

  close (): void {
    this.#client.disconnect()
  }

  async #drain (): Promise<void> {
    while (this.#queue.length > 0) {
      const jobs = this.#queue
      this.#queue = []
      await this.#commit(jobs)
    }
    this.#running = false
  }

  async #commit (jobs: Job[]): Promise<void> {
    const epoch = this.#epoch
    const held: Array<{ job: Job, reply: CreateReply }> = []
    const replies = await createAll(this.#client, jobs.map(({ call }) => call))
    for (const [at, job] of jobs.entries()) {
      const reply = replies[at] ?? new Error('no reply')
      if (reply instanceof Error) job.reject(reply)
      // A session that exists already may be known to this master alone: a repeated start must wait for it as well.
      else if (reply[0] === CreateCodes.admitted || reply[0] === CreateCodes.exists) held.push({ job, reply })
      else job.resolve(reply)
    }
    if (held.length === 0) return
    const confirmed = await this.#replicated().catch(() => false)
    for (const { job, reply } of held) {
      if (confirmed && epoch === this.#epoch) job.resolve(reply)
      else job.reject(unconfirmed())
    }
  }

  async #replicated (): Promise<boolean> {
    return await this.#client.wait(1, WAIT_MS) > 0 || !this.#mustReplicate()
  }
}

const unconfirmed = () => new ProblemError('admission-unconfirmed',
  'No replica confirmed the start; repeat it with the same Idempotency-Key.', { retryAfterSeconds: 1 })

/** Runs the admission script with the durability asked for. */
export class Admission {
  readonly #options: ConnectOptions
  readonly #client: RedisClient
  readonly #durability: Durability
  readonly #lanes = new Map<string, Lane>()
  readonly #local: Gather<CreateCall, CreateReply>
  /** Set by the monitor: whether any master has lacked a replica for so long that `auto` means `local`. */
  replicasConnected = false

  constructor (options: ConnectOptions, client: RedisClient, durability: Durability) {
    this.#options = options
    this.#client = client
    this.#durability = durability
    this.#local = new Gather(async calls => await createAll(client, calls))
  }

  /** What a 201 means right now. */
  get durability (): 'replicated' | 'local' {
    if (this.#durability !== 'auto') return this.#durability
    return this.replicasConnected ? 'replicated' : 'local'
  }

  /** Connections held beside the main client's. */
  get connections (): number {
    return this.#lanes.size
  }

  /** @throws ProblemError `admission-unconfirmed` when no replica acknowledged: the session may exist. Redis errors as they are. */
  async run (call: CreateCall): Promise<CreateReply> {
    if (this.durability === 'local') return await this.#local.one(call)
    for (let move = 1; ; move++) {
      try {
        return await this.#lane(call.slot).run(call)
      } catch (error) {
        if (move === MOVES || !(error instanceof Error) || !/^(MOVED|ASK|TRYAGAIN)\b/.test(error.message)) throw error
        if ('refreshSlotsCache' in this.#client) this.#client.refreshSlotsCache()
        await sleep(25 * 2 ** move * (0.5 + Math.random()))
      }
    }
  }

  close (): void {
    for (const lane of this.#lanes.values()) lane.close()
    this.#lanes.clear()
  }

  #lane (slot: number): Lane {
    const master = createMasterClient(this.#options, this.#client, slot)
    if (master === undefined) throw new ProblemError('store-unavailable', 'The session store did not answer; the same request may be repeated.', { retryAfterSeconds: 1 })
    let lane = this.#lanes.get(master.address)
    if (lane === undefined) {
      lane = new Lane(master.connect(), () => this.durability === 'replicated')
      this.#lanes.set(master.address, lane)
    }
    return lane
  }
}
