import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import { type AnswerTarget, PlainAnswer, PlainRequest } from './messages.ts'
import { readHead, type RequestHead } from './request-head.ts'

/** What all connections of a server have in common. */
export interface Front {
  server: Server
  /** Where plain requests go; others are Node's. */
  prefix: string
  maxBodyBytes: number
  fixedLines: AnswerTarget['fixedLines']
  keepAliveLines: string
  /** Sweeps that a request may take to arrive, and that a connection may be idle. */
  requestSweeps: number
  idleSweeps: number
  /** Gives the connection to Node's server for good. */
  toNode: (socket: Socket) => void
  forget: (connection: Connection) => void
}

/** `receiving`: part of a request is here, or the first has not begun. `leaving`: the next one waits for the last answer to leave. `closing`: the last thing has been said. */
type State = 'receiving' | 'answering' | 'leaving' | 'idle' | 'closing'

/** One client's connection: request after request, one at a time, until one comes that is not plain. */
export class Connection implements AnswerTarget {
  readonly #front: Front
  readonly #socket: Socket
  #state: State = 'receiving'
  /** Sweeps since the state began. */
  #age = 0
  /** What has come and is not served yet. */
  #waiting: Buffer | undefined
  /** The head of a request whose body is still coming. */
  #head: RequestHead | undefined
  #exchange: { request: PlainRequest, answer: PlainAnswer } | undefined
  #half = false
  #listening = true

  readonly #onData = (bytes: Buffer): void => { this.#received(bytes) }
  readonly #onEnd = (): void => { this.#ended() }
  readonly #onError = (error: Error): void => { this.#front.server.emit('clientError', error, this.#socket) }
  readonly #onClose = (): void => { this.#closed() }

  constructor (socket: Socket, front: Front) {
    this.#socket = socket
    this.#front = front
    socket.on('data', this.#onData).on('end', this.#onEnd).on('error', this.#onError).on('close', this.#onClose)
  }

  get fixedLines (): AnswerTarget['fixedLines'] {
    return this.#front.fixedLines
  }

  get keepAliveLines (): string {
    return this.#front.keepAliveLines
  }

  ending (): boolean {
    return (this.#half && this.#waiting === undefined) || !this.#front.server.listening
  }

  send (head: string, body: string | Buffer, encoding: 'latin1' | 'utf8', last: boolean): void {
    this.#exchange = undefined
    const socket = this.#socket
    if (socket.destroyed) return
    // A head is ASCII, so one text is right for both; a body of bytes has a write of its own, in the same packet.
    if (typeof body === 'string') socket.write(head + body, encoding)
    else {
      socket.cork()
      socket.write(head)
      socket.write(body)
      socket.uncork()
    }
    this.#become(last ? 'closing' : this.#waiting === undefined ? 'idle' : 'leaving')
    if (last) socket.destroySoon()
    else if (this.#waiting === undefined) this.#listen(true)
    else setImmediate(() => { this.#next() })
  }

  destroy (): void {
    this.#socket.destroy()
  }

  closeIfIdle (): void {
    if (this.#state === 'idle') this.destroy()
  }

  /** Called at every sweep. */
  sweep (): void {
    this.#age++
    const { requestSweeps, idleSweeps } = this.#front
    if (this.#state === 'receiving' && this.#age > requestSweeps) this.#refuse('ERR_HTTP_REQUEST_TIMEOUT')
    else if (this.#state !== 'answering' && this.#age > (this.#state === 'closing' ? requestSweeps : idleSweeps)) this.destroy()
  }

  #become (state: State): void {
    this.#state = state
    this.#age = 0
  }

  #received (bytes: Buffer): void {
    const all = this.#waiting === undefined ? bytes : Buffer.concat([this.#waiting, bytes])
    this.#waiting = all
    if (this.#state === 'idle' || this.#state === 'receiving') this.#read(all)
    else this.#listen(false)
  }

  /** While a request is here that has not been served, no more is read: what waits stays below what one read brings and the start of a request. */
  #listen (open: boolean): void {
    if (this.#listening === open) return
    this.#listening = open
    if (open) this.#socket.resume()
    else this.#socket.pause()
  }

  /** The request that came while another was answered. */
  #next (): void {
    if (this.#waiting === undefined || this.#socket.destroyed) return
    this.#become('idle')
    this.#read(this.#waiting)
  }

  #read (bytes: Buffer): void {
    const { prefix, maxBodyBytes } = this.#front
    const head = this.#head ?? readHead(bytes, prefix, maxBodyBytes)
    if (head === undefined) {
      this.#handOver(bytes)
      return
    }
    if (head === 'partial' || bytes.length < head.bodyAt + head.bodyLength) {
      if (this.#state !== 'receiving') this.#become('receiving')
      if (head !== 'partial') this.#head = head
      this.#listen(true)
      if (this.#half) this.#refuse('HPE_INVALID_EOF_STATE')
      return
    }
    if (this.#socket.writableLength > 0) {
      // A client that does not read gets no further answer made until all that was written has left; 'drain' comes only after more than a little.
      this.#become('leaving')
      this.#listen(false)
      this.#socket.write('', () => { this.#next() })
      return
    }
    this.#head = undefined
    const end = head.bodyAt + head.bodyLength
    this.#waiting = bytes.length > end ? bytes.subarray(end) : undefined
    this.#become('answering')
    this.#serve(head, head.bodyLength === 0 ? undefined : bytes.subarray(head.bodyAt, end))
  }

  #serve (head: RequestHead, body: Buffer | undefined): void {
    const request = new PlainRequest(head, body, this.#socket)
    const answer = new PlainAnswer(this)
    this.#exchange = { request, answer }
    this.#front.server.emit('request', request, answer)
  }

  #handOver (bytes: Buffer): void {
    const socket = this.#socket
    socket.off('data', this.#onData).off('end', this.#onEnd).off('error', this.#onError).off('close', this.#onClose)
    this.#front.forget(this)
    this.#front.toNode(socket)
    this.#listen(true)
    // To Node's parser as if they came just now.
    socket.emit('data', bytes)
    if (this.#half) socket.emit('end')
  }

  #refuse (code: string): void {
    this.#become('closing')
    this.#front.server.emit('clientError', Object.assign(new Error('no complete request'), { code }), this.#socket)
  }

  /** The client says no more; it may still listen. */
  #ended (): void {
    this.#half = true
    if (this.#state === 'receiving' && this.#waiting !== undefined) this.#refuse('HPE_INVALID_EOF_STATE')
    else if (this.#state !== 'answering' && this.#waiting === undefined) this.#socket.destroySoon()
  }

  #closed (): void {
    this.#front.forget(this)
    const exchange = this.#exchange
    if (exchange === undefined) return
    exchange.request.aborted = true
    exchange.answer.destroyed = true
    exchange.request.emit('close')
    exchange.answer.emit('close')
  }
}
