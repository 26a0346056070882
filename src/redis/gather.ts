/** Longest wait for the call before, ms: one node that is slow must not hold up the others for longer. */
const HOLD_MS = 5

/**
 * Gathers what requests ask for while the call before is under way, and asks for all of it in one call: so calls grow with the load, and
 * without load nobody waits. A command and a socket write of its own were the dearest parts of a heartbeat and of a start.
 */
export class Gather<Item, Reply> {
  readonly #call: (items: readonly Item[]) => Promise<Reply[]>
  #items: Item[] = []
  #replies: Promise<Reply[]> | undefined
  #underWay = 0
  #goOn: (() => void) | undefined

  /** `call` answers each item, in order, and does not reject for a single one. */
  constructor (call: (items: readonly Item[]) => Promise<Reply[]>) {
    this.#call = call
  }

  /** A reply for each item, in order. */
  async run (items: readonly Item[]): Promise<Reply[]> {
    const from = this.#items.length
    for (const item of items) this.#items.push(item)
    this.#replies ??= this.#inTurn()
    const replies = await this.#replies
    return replies.length === items.length ? replies : replies.slice(from, from + items.length)
  }

  async #inTurn (): Promise<Reply[]> {
    await new Promise(resolve => { setImmediate(resolve) })
    if (this.#underWay > 0) await this.#turn()
    const items = this.#items
    this.#items = []
    this.#replies = undefined
    this.#underWay++
    try {
      return await this.#call(items)
    } finally {
      this.#underWay--
      this.#goOn?.()
    }
  }

  async #turn (): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>(resolve => {
      this.#goOn = resolve
      timer = setTimeout(resolve, HOLD_MS)
    })
    clearTimeout(timer)
    this.#goOn = undefined
  }
}
