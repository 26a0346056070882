import { setTimeout as sleep } from 'node:timers/promises'
import { waitFor } from '../../test/support/wait-for.ts'
import type { World, WorldOptions } from './world.ts'

export interface Scenario {
  /** The alerts that have to fire by the fault and to end by the action. */
  alerts: string[]
  /** By what the rules' times are divided. */
  factor?: number
  world?: Omit<WorldOptions, 'rules' | 'scrapeMs' | 'timeoutMs'>
  scrapeMs?: number
  /** Changes of the rules that the runbook asks for. */
  rules?: (text: string) => string
  play: (trial: Trial) => Promise<void>
}

/** The world of a trial; the rules can be changed as an operator would change the file. */
export type TrialWorld = World & { changeRules: (change: (text: string) => string) => Promise<void> }

export interface Row { alert: string, fault: string, firedMs: number, action: string, resolvedMs: number, also: string[] }

const WITHIN_MS = 240_000
const LOOK_MS = 200

/** One alert's way: ordinary traffic, the fault, the alert, the runbook's action, the end of the alert. */
export class Trial {
  readonly world: TrialWorld
  readonly #alerts: string[]
  readonly #fired = new Map<string, number>()
  readonly #resolved = new Map<string, number>()
  #firing = new Set<string>()
  #fault = { text: '', atMs: 0 }
  #action = { text: '', atMs: 0 }
  #over = false
  readonly #watching: Promise<void>

  constructor (world: TrialWorld, alerts: string[]) {
    this.world = world
    this.#alerts = alerts
    this.#watching = this.#watch()
  }

  /** Traffic before the fault. @throws Error if one of the alerts still fires at its end. */
  async ordinary (seconds: number): Promise<void> {
    await sleep(seconds * 1_000)
    const early = this.#alerts.filter(alert => this.#firing.has(alert))
    if (early.length > 0) throw new Error(`${early.join()} fires without the fault`)
  }

  async fault (text: string, bring: () => Promise<unknown> | unknown): Promise<void> {
    this.#fault = { text, atMs: performance.now() }
    this.#fired.clear()
    process.stdout.write(`    fault: ${text}\n`)
    await bring()
  }

  async fires (...alerts: string[]): Promise<void> {
    for (const alert of alerts.length === 0 ? this.#alerts : alerts) {
      await waitFor(`${alert} to fire`, () => this.#fired.has(alert), WITHIN_MS)
      process.stdout.write(`    ${alert} fires after ${seconds(this.#fired.get(alert), this.#fault.atMs)} s\n`)
    }
  }

  async action (text: string, carryOut: () => Promise<unknown> | unknown): Promise<void> {
    process.stdout.write(`    action: ${text}\n`)
    this.#action = { text, atMs: performance.now() }
    await carryOut()
  }

  async ends (...alerts: string[]): Promise<void> {
    for (const alert of alerts.length === 0 ? this.#alerts : alerts) {
      await waitFor(`${alert} to end`, () => !this.#firing.has(alert), WITHIN_MS)
      // One that ended by itself before says nothing about the action: the table shows it.
      const early = (this.#resolved.get(alert) ?? 0) < this.#action.atMs
      process.stdout.write(early ? `    ${alert} had ended before the action\n` : `    ${alert} has ended after ${seconds(this.#resolved.get(alert), this.#action.atMs)} s\n`)
    }
  }

  async close (): Promise<void> {
    this.#over = true
    await this.#watching
  }

  rows (): Row[] {
    const also = [...this.#fired.keys()].filter(alert => !this.#alerts.includes(alert))
    return this.#alerts.map(alert => ({
      alert,
      fault: this.#fault.text,
      firedMs: (this.#fired.get(alert) ?? NaN) - this.#fault.atMs,
      action: this.#action.text,
      resolvedMs: (this.#resolved.get(alert) ?? NaN) - this.#action.atMs,
      also
    }))
  }

  async #watch (): Promise<void> {
    while (!this.#over) {
      const now = await this.world.prometheus.firing().catch(() => undefined)
      if (now !== undefined) {
        for (const alert of now) if (!this.#fired.has(alert)) this.#fired.set(alert, performance.now())
        for (const alert of this.#firing) if (!now.has(alert)) this.#resolved.set(alert, performance.now())
        this.#firing = now
      }
      await sleep(LOOK_MS)
    }
  }
}

const seconds = (atMs = NaN, sinceMs: number): string => ((atMs - sinceMs) / 1_000).toFixed(1)
