import { type OutgoingHttpHeaders, STATUS_CODES, validateHeaderName } from 'node:http'
import type { Socket } from 'node:net'
import { Listeners } from './listeners.ts'
import type { RequestHead } from './request-head.ts'

/** A request that is here in full; to Fastify it is what Node's `IncomingMessage` is. */
export class PlainRequest extends Listeners {
  readonly method: string
  readonly url: string
  readonly headers: Record<string, string>
  readonly socket: Socket
  readonly httpVersion = '1.1'
  readonly httpVersionMajor = 1
  readonly httpVersionMinor = 1
  readonly complete = true
  /** The client has gone before its answer. */
  aborted = false
  #body: Buffer | undefined

  constructor ({ method, url, headers }: RequestHead, body: Buffer | undefined, socket: Socket) {
    super()
    this.method = method
    this.url = url
    this.headers = headers
    this.socket = socket
    this.#body = body
  }

  /** As sent, but for the case of the names. */
  get rawHeaders (): string[] {
    const all: string[] = []
    for (const name in this.headers) all.push(name, this.headers[name] ?? '')
    return all
  }

  get destroyed (): boolean {
    return this.aborted
  }

  /** Whoever listens for the body gets it now, whole, and its end. */
  resume (): this {
    const body = this.#body
    this.#body = undefined
    if (body !== undefined) this.emit('data', body)
    this.emit('end')
    return this
  }
}

/** Where an answer goes. */
export interface AnswerTarget {
  /** Lines that every answer has, given the headers of its own. */
  fixedLines: (own: OutgoingHttpHeaders) => string
  /** What is said to a client that may stay. */
  keepAliveLines: string
  /** The connection ends with this answer, whatever the answer says. */
  ending: () => boolean
  /** Takes the whole answer; `encoding`: of a body that is text; `last`: nothing comes after it. */
  send: (head: string, body: string | Buffer, encoding: 'latin1' | 'utf8', last: boolean) => void
  destroy: () => void
}

type Value = OutgoingHttpHeaders[string]

const CLOSE = 'Connection: close\r\n'
const PRINTABLE = /^[\t\x20-\x7e]*$/
/** Names of headers that were looked at before. There are few, but for what another region may pass on. */
const validNames = new Set<string>()
const MOST_NAMES = 64

/** The answer to a plain request, sent whole; to Fastify it is what Node's `ServerResponse` is. */
export class PlainAnswer extends Listeners {
  statusCode = 200
  writableEnded = false
  destroyed = false
  readonly #target: AnswerTarget
  #headers: OutgoingHttpHeaders | undefined
  #head = ''
  #bytes: Value
  #last = false

  constructor (target: AnswerTarget) {
    super()
    this.#target = target
  }

  get headersSent (): boolean {
    return this.#head !== ''
  }

  setHeader (name: string, value: Value): this {
    this.#headers = { ...this.#headers, [name.toLowerCase()]: value }
    return this
  }

  getHeader (name: string): Value {
    return this.#headers?.[name.toLowerCase()]
  }

  getHeaders (): OutgoingHttpHeaders {
    return { ...this.#headers }
  }

  hasHeader (name: string): boolean {
    return this.getHeader(name) !== undefined
  }

  removeHeader (name: string): void {
    this.setHeader(name, undefined)
  }

  /** `headers`: names in lower case. @throws TypeError for a header that could not be one line; Error for a second head. */
  writeHead (statusCode: number, headers: OutgoingHttpHeaders = {}): this {
    if (this.headersSent) throw Object.assign(new Error('the answer has its head already'), { code: 'ERR_HTTP_HEADERS_SENT' })
    const own = this.#headers === undefined ? headers : { ...this.#headers, ...headers }
    let lines = ''
    for (const name in own) if (name !== 'connection') lines += headerLines(name, own[name])
    const { connection, 'content-length': bytes } = own
    this.#bytes = bytes
    this.#last = connection === 'close' || this.#target.ending()
    this.statusCode = statusCode
    this.#head = `HTTP/1.1 ${statusCode} ${STATUS_CODES[statusCode] ?? ''}\r\n${this.#target.fixedLines(own)}${lines}${dateLine()}${this.#last ? CLOSE : this.#target.keepAliveLines}\r\n`
    return this
  }

  end (body?: string | Buffer | null): this {
    if (this.writableEnded) return this
    if (!this.headersSent) this.writeHead(this.statusCode)
    this.writableEnded = true
    // As many bytes as characters: ASCII, which Latin-1 copies as it is, 0.4 µs less than UTF-8. Fastify has counted them already.
    this.#target.send(this.#head, body ?? '', Number(this.#bytes) === body?.length ? 'latin1' : 'utf8', this.#last)
    this.emit('finish')
    return this
  }

  destroy (): this {
    this.#target.destroy()
    return this
  }
}

/** @throws TypeError for a name or value that could not be one line. */
function headerLines (name: string, value: Value): string {
  if (value === undefined) return ''
  if (Array.isArray(value)) return value.map(each => headerLines(name, each)).join('')
  if (!validNames.has(name)) {
    validateHeaderName(name)
    if (validNames.size < MOST_NAMES) validNames.add(name)
  }
  if (typeof value === 'string' && !PRINTABLE.test(value)) throw new TypeError(`the header ${name} has a character that no header has`)
  return `${name}: ${value}\r\n`
}

let dateSecond = 0
let date = ''
/** RFC 9110, section 6.6.1; made once a second. */
function dateLine (): string {
  const second = Math.floor(Date.now() / 1_000)
  if (second !== dateSecond) {
    dateSecond = second
    date = `Date: ${new Date(second * 1_000).toUTCString()}\r\n`
  }
  return date
}
