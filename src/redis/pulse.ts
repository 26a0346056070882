import { runBatch } from './batch.ts'
import type { RedisClock } from './clock.ts'
import { keys, SLOTS, tagOfSlot } from './keys.ts'
import type { RedisClient } from './scripts.ts'

/** Slots per pulse key. A shard's outage is noticed for its slots alone, at 64 small calls per sweep. */
const GROUP_SIZE = 256
const GROUPS = SLOTS / GROUP_SIZE
const ALL_GROUPS = Array.from({ length: GROUPS }, (_, group) => group)

export interface PulseOptions {
  client: RedisClient
  clock: RedisClock
  /** T, ms: how long the grace lasts. */
  timeoutMs: number
  heartbeatMs: number
  sweepMs: number
  /** How long Redis remembers a pulse: as long as a session can live. */
  ttlMs: number
}

/**
 * Knows whether *we* have been away. A gap in the service's own pulse (all instances down, Redis or the network away) opens a
 * grace of T in which no session is ended for silence: its viewer may have beaten against a closed door. The same idea as
 * the self-preservation of Netflix Eureka. The pulse lives in Redis, per group of slots, shared by all instances.
 */
export class Pulse {
  readonly #options: PulseOptions
  readonly #maxGapMs: number
  /** True while Redis belongs to another region: then nothing is swept and nothing is written, and nobody is known to be in a grace. */
  suspended = false
  readonly #groups = Array.from({ length: GROUPS }, () => ({ graceUntilMs: 0, takenAt: -Infinity }))

  constructor (options: PulseOptions) {
    this.#options = options
    this.#maxGapMs = Math.max(options.heartbeatMs, 3 * options.sweepMs)
  }

  /** Takes every group's pulse. Answers the slots whose sweep is this instance's turn, and whether all groups answered. */
  async takeAll (): Promise<{ slots: number[], complete: boolean }> {
    if (this.suspended) return { slots: [], complete: false }
    const groups = ALL_GROUPS
    const turns = await this.#take(groups, '1')
    const mine = groups.filter((_, index) => turns[index] === true)
    return {
      slots: mine.flatMap(group => Array.from({ length: GROUP_SIZE }, (_, index) => group * GROUP_SIZE + index)),
      complete: !turns.includes(undefined)
    }
  }

  /**
   * Begins to take the pulse after `suspended`; false, and nothing changes, unless every group could be written: the proof that Redis takes writes from
   * us. `grace`: whatever the last pulse says, nobody is ended for silence for T, since Redis has changed hands and perhaps its clock with them.
   */
  async resume ({ grace }: { grace: boolean }): Promise<boolean> {
    const turns = await this.#take(ALL_GROUPS, '0', grace ? -Number.MAX_SAFE_INTEGER : this.#maxGapMs)
    if (turns.includes(undefined)) return false
    this.suspended = false
    return true
  }

  /** Until when (Redis ms; 0: not at all) nobody of this slot may be ended for silence. Asks Redis if our own knowledge is old. */
  async graceUntilMs (slot: number): Promise<number> {
    const group = Math.floor(slot / GROUP_SIZE)
    const state = this.#groups[group]
    if (state === undefined || this.suspended) return 0
    const known = (): boolean => performance.now() - state.takenAt <= this.#maxGapMs / 2
    if (!known()) await this.#take([group], '0')
    // Without a pulse we cannot tell an outage of ours from silent viewers: then nobody is ended.
    return known() ? state.graceUntilMs : Number.MAX_SAFE_INTEGER
  }

  /** How many of the 64 groups are in their grace. */
  groupsInGrace (): number {
    const now = this.#options.clock.nowMs()
    return this.#groups.filter(group => group.graceUntilMs > now).length
  }

  /** True for a group whose sweep is ours, undefined for one that did not answer. */
  async #take (groups: readonly number[], sweep: '0' | '1', maxGapMs = this.#maxGapMs): Promise<Array<boolean | undefined>> {
    const { client, clock, timeoutMs, sweepMs, ttlMs } = this.#options
    const replies = await runBatch(client, groups.map(group => redis => redis.pulse(keys.pulse(tagOfSlot(group * GROUP_SIZE)), maxGapMs, timeoutMs, sweepMs, ttlMs, sweep)))
    return replies.map((reply, index) => {
      const state = this.#groups[groups[index] ?? -1]
      if (!reply.ok || !Array.isArray(reply.value) || state === undefined) return undefined
      const [nowMs, graceUntilMs, mine]: unknown[] = reply.value
      clock.observe(Number(nowMs))
      state.graceUntilMs = Number(graceUntilMs)
      state.takenAt = performance.now()
      return mine === 1
    })
  }
}
