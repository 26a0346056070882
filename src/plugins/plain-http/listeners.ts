type Listener = (...args: unknown[]) => void
interface Entry { name: string, call: Listener, next: Entry | undefined }

/**
 * What Fastify and its plugins use of an EventEmitter on a request and an answer: five listeners that come and go within one request. Node's own
 * makes a dictionary for each of the two objects, 0.8 µs a request instead of 0.15. Listeners are called in the order in which they came.
 */
export class Listeners {
  #first: Entry | undefined

  on (name: string, call: Listener): this {
    const entry: Entry = { name, call, next: undefined }
    let last = this.#first
    while (last?.next !== undefined) last = last.next
    if (last === undefined) this.#first = entry
    else last.next = entry
    return this
  }

  once (name: string, call: Listener): this {
    const once: Listener = (...args) => {
      this.off(name, once)
      call.apply(this, args)
    }
    return this.on(name, once)
  }

  off (name: string, call: Listener): this {
    let before: Entry | undefined
    for (let entry = this.#first; entry !== undefined; before = entry, entry = entry.next) {
      if (entry.name !== name || entry.call !== call) continue
      // The removed one hears no more, and still leads on, for an `emit` that is under way.
      entry.name = ''
      if (before === undefined) this.#first = entry.next
      else before.next = entry.next
      break
    }
    return this
  }

  removeListener (name: string, call: Listener): this {
    return this.off(name, call)
  }

  /** Whether anybody listened. */
  emit (name: string, ...args: unknown[]): boolean {
    let heard = false
    for (let entry = this.#first; entry !== undefined; entry = entry.next) {
      if (entry.name !== name) continue
      heard = true
      entry.call.apply(this, args)
    }
    return heard
  }
}
