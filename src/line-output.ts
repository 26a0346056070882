import { fstatSync, write, writeSync } from 'node:fs'

/** Bytes in one write: half of what a pipe holds. */
const AT_ONCE = 32 * 1024
/** Bytes that reach a pipe in one piece whatever else writes to it, and however full it is: PIPE_BUF of pipe(7). */
const IN_ONE_PIECE = 4_096
/** Characters that wait for a reader who does not read; lines beyond them are refused, so memory stays bounded. */
const MOST_WAITING = 64 * 1024 * 1024
/** Pause before a write is tried again: that met a full pipe, that failed otherwise. */
const FULL_MS = 5
const RETRY_MS = 100
/** Longest wait of `flushSync` for a reader, ms. */
const LAST_WAIT_MS = 2_000

/** `settle`: whoever waits for this line, and for all before it. */
interface Line { text: string, settle?: { promise: Promise<void>, resolve: () => void, reject: (error: Error) => void } }

const ENCODER = new TextEncoder()
const CLOCK = new Int32Array(new SharedArrayBuffer(4))

/**
 * Writes lines to a file descriptor, what has come meanwhile in one write of whole lines, and says when they are there. pino's own destination
 * cuts the lines of processes that share a pipe where its reader is slow, and does not say when a line is there.
 */
export class LineOutput {
  readonly #fd: number
  readonly #mostWaiting: number
  readonly #bytes: Uint8Array
  /** The first `#underWay` of them are in `#bytes`. */
  readonly #lines: Line[] = []
  #underWay = 0
  #waiting = 0
  #busy = false
  #gone: Error | undefined

  /** `shared`: other processes write to the same pipe. Lines of up to 4 KiB stay whole there, for some 1 µs more each. */
  constructor (fd: number, { shared, mostWaiting = MOST_WAITING }: { shared: boolean, mostWaiting?: number }) {
    this.#fd = fd
    this.#mostWaiting = mostWaiting
    this.#bytes = new Uint8Array(shared && fstatSync(fd).isFIFO() ? IN_ONE_PIECE : AT_ONCE)
  }

  /** Takes one line, with its newline; false: refused, because the reader is gone or has left too much unread. */
  write (line: string): boolean {
    if (this.#gone !== undefined || this.#waiting + line.length > this.#mostWaiting) return false
    this.#waiting += line.length
    this.#lines.push({ text: line })
    if (!this.#busy) {
      this.#busy = true
      setImmediate(() => { this.#next() })
    }
    return true
  }

  /** Settles once the operating system has every line that was taken so far; rejects when the reader is gone. */
  written (): Promise<void> {
    const last = this.#lines.at(-1)
    if (last === undefined) return this.#gone === undefined ? Promise.resolve() : Promise.reject(this.#gone)
    last.settle ??= settler()
    return last.settle.promise
  }

  /** For the end of the process: writes what waits, now; gives up on a reader who takes nothing for two seconds. */
  flushSync (): void {
    const left = this.#lines.splice(this.#underWay)
    let bytes: Uint8Array = ENCODER.encode(left.map(({ text }) => text).join(''))
    let endMs = performance.now() + LAST_WAIT_MS
    while (bytes.length > 0) {
      try {
        bytes = bytes.subarray(writeSync(this.#fd, bytes))
        endMs = performance.now() + LAST_WAIT_MS
      } catch (error) {
        if (performance.now() > endMs || !isForNow(error)) return this.#lose(left, asError(error))
        Atomics.wait(CLOCK, 0, 0, 10)
      }
    }
    this.#done(left)
  }

  #next (): void {
    const length = this.#fill()
    this.#busy = length > 0
    if (this.#busy) this.#send(0, length)
  }

  /** Takes as many lines as there is room for, all of them whole, but for one that is longer than the room. */
  #fill (): number {
    let end = 0
    for (const line of this.#lines) {
      const { read, written } = ENCODER.encodeInto(line.text, this.#bytes.subarray(end))
      if (read < line.text.length) {
        if (end > 0) return end
        this.#waiting -= read
        line.text = line.text.slice(read)
        return written
      }
      end += written
      this.#underWay++
    }
    return end
  }

  #send (from: number, to: number): void {
    write(this.#fd, this.#bytes, from, to - from, null, (error, count) => {
      if (error === null && from + count === to) {
        this.#done(this.#lines.splice(0, this.#underWay))
        this.#underWay = 0
        this.#next()
      } else if (error === null) {
        this.#send(from + count, to)
      } else if (isForNow(error)) {
        setTimeout(() => { this.#send(from, to) }, error.code === 'EAGAIN' ? FULL_MS : RETRY_MS)
      } else {
        this.#underWay = 0
        this.#lose(this.#lines.splice(0), error)
      }
    })
  }

  #done (lines: readonly Line[]): void {
    for (const { text, settle } of lines) {
      this.#waiting -= text.length
      settle?.resolve()
    }
  }

  #lose (lines: readonly Line[], error: Error): void {
    this.#gone = error
    for (const { settle } of lines) settle?.reject(error)
  }
}

/** A full pipe, a full disk: it may take lines again. A pipe that nobody reads any more never does. */
function isForNow (error: unknown): boolean {
  return !(error instanceof Error && 'code' in error && (error.code === 'EPIPE' || error.code === 'EBADF'))
}

function asError (error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}

function settler (): NonNullable<Line['settle']> {
  let settle: Omit<NonNullable<Line['settle']>, 'promise'> = { resolve: () => {}, reject: () => {} }
  const promise = new Promise<void>((resolve, reject) => { settle = { resolve, reject } })
  return { promise, ...settle }
}
