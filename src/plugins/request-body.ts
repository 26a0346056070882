import { IncomingMessage } from 'node:http'
import { errorCodes, type FastifyReply, type FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'

type Taker = (error: Error | undefined, body: Buffer) => void

const NOTHING = Buffer.alloc(0)
/** What may lie here before somebody takes it; with more the stream does its work, which makes the sender wait. */
const MAX_WAITING = 16 * 1024

const { _dump: dump } = IncomingMessage.prototype as unknown as { _dump: (this: IncomingMessage) => void }

/**
 * Node's request, whose body can be taken whole. As a stream it comes by two listeners, three later turns and an end of its own, which was a
 * sixth of what a small POST costs. Whoever reads it as a stream gets one.
 */
export class Message extends IncomingMessage {
  /** Most bytes of a body that is taken whole, where a route says so. */
  limit: number | undefined
  #chunks: Buffer[] = []
  #length = 0
  #ended = false
  #streams = false
  #taker: Taker | undefined

  /** Gives the body once all of it is here, or why it will not be; a body that is read as a stream is never given. */
  takeBody (limit: number, taker: Taker): void {
    this.#taker = taker
    this.limit ??= limit
    const announced = Number(this.headers['content-length'] ?? 0)
    if (this.destroyed) this.#give(cutShort())
    else if (this.#length > this.limit || announced > this.limit) this.#give(new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE())
    else if (this.#ended) this.#give(undefined)
  }

  /** True while nobody has begun to read it as a stream. */
  get whole (): boolean {
    return !this.#streams
  }

  /** Called by Node for each part of the body, and with null at its end. */
  override push (chunk: Buffer | null): boolean {
    if (this.#streams) return super.push(chunk)
    if (chunk === null) {
      this.#ended = true
      this.#give(undefined)
      return false
    }
    this.#chunks.push(chunk)
    this.#length += chunk.length
    if (this.#length > (this.limit ?? Infinity)) this.#give(new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE())
    if (this.#taker === undefined && this.#length > MAX_WAITING) return this.#stream()
    return true
  }

  /** Called by Node when it has answered and nobody has read the body. */
  _dump (): void {
    if (this.#streams || !this.#ended) {
      this.#stream()
      dump.call(this)
      return
    }
    this.#chunks = []
    // As the end of the stream would: until then an idle connection holds on to its last request.
    const { parser } = this.socket as { parser?: { incoming: unknown } | null }
    if (parser?.incoming === this) parser.incoming = null
  }

  override read (size?: number): unknown {
    this.#stream()
    return super.read(size)
  }

  override resume (): this {
    this.#stream()
    return super.resume()
  }

  override _destroy (error: Error | null, callback: (error?: Error | null) => void): void {
    this.#give(error ?? cutShort())
    super._destroy(error, callback)
  }

  #give (error: Error | undefined): void {
    const taker = this.#taker
    if (taker === undefined) return
    this.#taker = undefined
    const [first = NOTHING] = this.#chunks
    const body = this.#chunks.length > 1 ? Buffer.concat(this.#chunks, this.#length) : first
    this.#chunks = []
    taker(error, body)
  }

  /** From here on it is what Node made it: a stream, of what has come so far and of what will. */
  #stream (): boolean {
    if (this.#streams) return true
    this.#streams = true
    const chunks = this.#chunks
    this.#chunks = []
    let goOn = true
    for (const chunk of chunks) goOn = super.push(chunk)
    return this.#ended ? super.push(null) : goOn
  }
}

const cutShort = (): Error => new Error('the request ended before its body')

/** The body of a request that is a stream already: more than a little of it came before it was wanted, or it is no request of Node's. */
async function streamed (payload: IncomingMessage, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  // Not destroyed when it is too long: the answer has to go the same way.
  for await (const chunk of payload.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk)
    length += chunk.length
    if (length > limit) throw new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE()
  }
  return Buffer.concat(chunks)
}

export interface RequestBodyOptions {
  /** Largest body of routes that name none, bytes. */
  limit: number
}

/** Bodies are JSON, taken whole; a route's own `bodyLimit` counts. */
export default fp<RequestBodyOptions>(async function requestBody (fastify, { limit }) {
  const parse: (request: FastifyRequest, text: string, done: (error: Error | null, body?: unknown) => void) => void = fastify.getDefaultJsonParser('error', 'error')
  fastify.removeContentTypeParser('application/json')
  fastify.addContentTypeParser('application/json', (request, payload, done) => {
    const take: Taker = (error, body) => {
      // As Fastify has it: what cuts a body short is the client's.
      if (error !== undefined) done(Object.assign(error, { statusCode: 'statusCode' in error ? error.statusCode : 400 }))
      else parse(request, body.toString(), done)
    }
    if (payload instanceof Message && payload.whole) payload.takeBody(limit, take)
    else streamed(payload, request.routeOptions.bodyLimit).then(body => { take(undefined, body) }).catch((error: Error) => { take(error, NOTHING) })
  })
  fastify.addHook('onRoute', route => {
    const { bodyLimit } = route
    if (bodyLimit === undefined) return
    route.onRequest = [...[route.onRequest ?? []].flat(), ({ raw }: FastifyRequest, _reply: FastifyReply, done: () => void) => {
      if (raw instanceof Message) raw.limit = bodyLimit
      done()
    }]
  })
}, { name: 'request-body' })
