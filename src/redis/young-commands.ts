import { Command } from 'ioredis'

/** What a command of ioredis 6 keeps to itself. */
interface Internals {
  name: string
  args: unknown[]
  callback?: unknown
  errorStack?: unknown
  transformed: boolean
  isResolved: boolean
  isSettled: boolean
  promise: Promise<unknown>
  resolve: (value: unknown) => unknown
  reject: (error: unknown) => void
  stringifyArguments: () => void
  _convertValue: (resolve: (value: unknown) => void) => (value: unknown) => unknown
  _clearTimers: () => void
}
type Transformers = Record<string, ((args: unknown[]) => unknown[]) | undefined>

const prototype: object = Command.prototype
const original: unknown = Reflect.get(prototype, 'initPromise')
const transformers: { argument?: Transformers } | undefined = Reflect.get(Command, '_transformer')

/**
 * Lets commands die young. ioredis writes `this.reject = error => …` for each command. V8's parser takes a function that is assigned to a property
 * for a method, which will live, and its optimised code puts it into the old generation at once; from there, dead, it keeps its command with arguments
 * and reply alive for every collection but the major ones. Half of what moved to the old generation under heartbeats were such commands, which is
 * what made it grow to a hundred MB. This is the same method with the function in a variable first.
 */
export function keepCommandsYoung (): void {
  if (typeof original === 'function' && transformers?.argument !== undefined) Reflect.set(prototype, 'initPromise', initPromise)
}

function initPromise (this: Internals): void {
  // Neither is asked for by this service, but by the library itself as it connects.
  if (this.callback !== undefined || this.errorStack !== undefined) {
    if (typeof original === 'function') original.call(this)
    return
  }
  this.isResolved = false
  this.isSettled = false
  this.promise = new Promise((resolve, reject) => {
    if (!this.transformed) {
      this.transformed = true
      this.args = transformers?.argument?.[this.name]?.(this.args) ?? this.args
      this.stringifyArguments()
    }
    const fail = (error: unknown): void => {
      this._clearTimers()
      this.isSettled = true
      reject(error instanceof Error ? error : new Error(String(error)))
    }
    this.resolve = this._convertValue(resolve)
    this.reject = fail
  })
}
