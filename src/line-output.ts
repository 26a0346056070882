import { fstatSync, writeSync } from 'node:fs'

/** Bytes in one write. */
const AT_ONCE = 64 * 1024
/** Bytes that a pipe takes in one piece or not at all, whatever else writes to it: PIPE_BUF of pipe(7). */
const IN_ONE_PIECE = 4_096
/** Characters that wait for a reader who does not read; lines beyond them are refused, so memory stays bounded. */
const MOST_WAITING = 64 * 1024 * 1024
/** Pause after a write that met a full pipe, or failed, ms; it doubles each time. */
const PAUSE_MS = 1
const LONGEST_PAUSE_MS = 64
/** Longest wait of `flushSync` for a reader, ms. */
const LAST_WAIT_MS = 2_000

/** Who waits for all lines up to the `line`th. */
interface Waiter { line: number, promise: Promise<void>, resolve: () => void, reject: (error: Error) => void }

const ENCODER = new TextEncoder()
const CLOCK = new Int32Array(new SharedArrayBuffer(4))

/**
 * Writes lines to a file descriptor, what has come in a turn of the event loop in as few writes as there can be, and says when they are there.
 * The descriptor of a pipe is to be non-blocking: then a reader who is slow holds up nobody. pino's own destination sends each write through
 * a thread, one in a turn of the loop, so that under load lines pile up; and it cuts the lines of processes that share a pipe.
 */
export class LineOutput {
  readonly #fd: number
  readonly #mostWaiting: number
  /** A write under way is `#from` to `#to` of it. */
  readonly #bytes: Uint8Array
  #from = 0
  #to = 0
  /** Taken and not yet in `#bytes`, from `#next` on. */
  #lines: string[] = []
  #next = 0
  #waiting = 0
  /** Lines taken, lines in `#bytes` or past it. */
  #taken = 0
  #passed = 0
  readonly #waiters: Waiter[] = []
  #busy = false
  #pauseMs = PAUSE_MS
  #gone: Error | undefined

  /** `shared`: other processes write to the same pipe or socket; lines of up to 4 KiB stay whole there. */
  constructor (fd: number, { shared, mostWaiting = MOST_WAITING }: { shared: boolean, mostWaiting?: number }) {
    this.#fd = fd
    this.#mostWaiting = mostWaiting
    this.#bytes = new Uint8Array(shared && !fstatSync(fd).isFile() ? IN_ONE_PIECE : AT_ONCE)
  }

  /** Takes one line, with its newline; false: refused, because the reader is gone or has left too much unread. */
  write (line: string): boolean {
    if (this.#gone !== undefined || this.#waiting + line.length > this.#mostWaiting) return false
    this.#waiting += line.length
    this.#taken++
    this.#lines.push(line)
    if (!this.#busy) {
      this.#busy = true
      setImmediate(() => { this.#flush() })
    }
    return true
  }

  /** Settles once the operating system has every line that was taken so far; rejects when the reader is gone. */
  async written (): Promise<void> {
    if (this.#gone !== undefined) throw this.#gone
    if (!this.#busy) return
    let last = this.#waiters.at(-1)
    if (last?.line !== this.#taken) {
      last = waiter(this.#taken)
      this.#waiters.push(last)
    }
    await last.promise
  }

  /** For the end of the process: writes what waits, now; gives up on a reader who takes nothing for two seconds. */
  flushSync (): void {
    let [left, endMs] = [Infinity, 0]
    for (let error = this.#writeAll(); error !== undefined; error = this.#writeAll()) {
      if (this.#left < left) [left, endMs] = [this.#left, performance.now() + LAST_WAIT_MS]
      if (performance.now() > endMs || !isForNow(error)) {
        this.#lose(error)
        return
      }
      Atomics.wait(CLOCK, 0, 0, PAUSE_MS)
    }
  }

  get #left (): number {
    return this.#waiting + this.#to - this.#from
  }

  #flush (): void {
    const error = this.#writeAll()
    this.#busy = error !== undefined
    if (error === undefined) return
    if (!isForNow(error)) {
      this.#lose(error)
      return
    }
    setTimeout(() => { this.#flush() }, this.#pauseMs)
    this.#pauseMs = Math.min(2 * this.#pauseMs, LONGEST_PAUSE_MS)
  }

  /** Answers what kept it from writing everything. */
  #writeAll (): Error | undefined {
    try {
      while (this.#from < this.#to || this.#fill()) {
        this.#from += writeSync(this.#fd, this.#bytes, this.#from, this.#to - this.#from)
        this.#pauseMs = PAUSE_MS
        if (this.#from === this.#to) this.#settle()
      }
      this.#settle()
      return undefined
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error))
    }
  }

  /** Takes as many lines as there is room for, all of them whole, but for one that is longer than the room. */
  #fill (): boolean {
    const lines = this.#lines
    let end = this.#next + 1
    let text = lines[this.#next]
    if (text === undefined) {
      this.#lines = []
      this.#next = 0
      return false
    }
    for (let line = lines[end]; line !== undefined && text.length + line.length <= this.#bytes.length; line = lines[++end]) text += line
    let { read, written } = ENCODER.encodeInto(text, this.#bytes)
    if (read < text.length && end > this.#next + 1) {
      // Some of it is not ASCII and takes more bytes than characters: then the first line alone.
      end = this.#next + 1
      text = lines[this.#next] ?? ''
      ;({ read, written } = ENCODER.encodeInto(text, this.#bytes))
    }
    this.#waiting -= read
    this.#from = 0
    this.#to = written
    if (read < text.length) {
      lines[this.#next] = text.slice(read)
    } else {
      this.#passed += end - this.#next
      this.#next = end
    }
    return true
  }

  #settle (): void {
    while (this.#waiters[0] !== undefined && this.#waiters[0].line <= this.#passed) this.#waiters.shift()?.resolve()
  }

  #lose (error: Error): void {
    this.#gone = error
    this.#lines = []
    for (const { reject } of this.#waiters.splice(0)) reject(error)
  }
}

/** A full pipe, a full disk: it may take lines again. A pipe that nobody reads any more never does. */
function isForNow (error: Error): boolean {
  return !('code' in error && (error.code === 'EPIPE' || error.code === 'EBADF'))
}

function waiter (line: number): Waiter {
  let settle: Pick<Waiter, 'resolve' | 'reject'> = { resolve: () => {}, reject: () => {} }
  const promise = new Promise<void>((resolve, reject) => { settle = { resolve, reject } })
  return { line, promise, ...settle }
}
