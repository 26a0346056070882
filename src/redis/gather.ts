/** Longest wait for the call before, ms: one node that is slow must not hold up the others for longer. */
const HOLD_MS = 5

/**
 * Gathers what requests ask for while the call before is under way, and asks for all of it in one call: so calls grow with the load, and
 * without load nobody waits. A command and a socket write of its own were the dearest parts of a heartbeat and of a start.
 */
export class Gather<Item, Reply> {
  readonly #call: (items: readonly Item[]) => Promise<Array<Reply | Error>>
  #items: Item[] = []
  #replies: Promise<Array<Reply | Error>> | undefined
  #underWay = 0
  #goOn: (() => void) | undefined

  /** `call` answers each item, in order, and does not reject for a single one. */
  constructor (call: (items: readonly Item[]) => Promise<Array<Reply | Error>>) {
    this.#call = call
  }

  /** The reply for this item; rejects with its error. Not async: a heartbeat pays for each promise on its way. */
  one (item: Item): Promise<Reply> {
    const at = this.#items.push(item) - 1
    this.#replies ??= this.#inTurn()
    return this.#replies.then(replies => {
      const reply = replies[at]
      if (reply === undefined || reply instanceof Error) throw reply ?? new Error('no reply')
      return reply
    })
  }

  /** A reply or an error for each item, in order. */
  async many (items: readonly Item[]): Promise<Array<Reply | Error>> {
    const from = this.#items.length
    for (const item of items) this.#items.push(item)
    this.#replies ??= this.#inTurn()
    const replies = await this.#replies
    return replies.length === items.length ? replies : replies.slice(from, from + items.length)
  }

  async #inTurn (): Promise<Array<Reply | Error>> {
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
