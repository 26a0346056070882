import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'

export type UpstreamName = 'identity' | 'content'

/** How a stubbed service answers. An array is used up one call at a time; its last entry stays. */
export type Mode =
  | 'ok'
  /** 500 with a JSON body. */
  | 'status-500'
  /** 500 and half a body, then silence. */
  | 'status-500-hang'
  /** Takes the request and never answers. */
  | 'hang'
  /** 200 and half a body, then silence. */
  | 'hang-body'
  /** Closes the connection by RST instead of answering. */
  | 'reset'
  | 'html'
  /** 302 to a place that says yes; counted in `calls.elsewhere`. */
  | 'redirect'
  /** 10 MB of valid JSON. */
  | 'huge'
  /** One header line every 20 ms, for ever. */
  | 'slow-headers'
  | 'garbage'
  /** A good answer behind a byte order mark, in two parts. */
  | 'marked'
  /** `{"entitled":"yes"}` */
  | 'wrong-type'
  /** Waits before a good answer. */
  | { delayMs: number }
  | { json: unknown, status?: number, headers?: Record<string, string> }

export interface StubUpstream {
  identityUrl: string
  contentUrl: string
  calls: { identity: number, content: number, elsewhere: number }
  /** The last target asked, path and query, without the base URL's prefix. */
  lastTarget: { identity: string, content: string }
  /** Bytes of `huge` bodies that were handed to the network. */
  hugeBytesSent: () => number
  behave: (which: UpstreamName, mode: Mode | readonly Mode[]) => void
  close: () => Promise<void>
}

const HOST = '127.0.0.1'
const GOOD = { identity: { entitled: true, max_streams: 4 }, content: { available: true } }
const HUGE_BYTES = 10 * 1024 * 1024

/** A real HTTP server that plays both services, each below a path prefix of its own, on a free loopback port. Both begin in mode `ok`. */
export async function startStubUpstream (): Promise<StubUpstream> {
  const modes: Record<UpstreamName, Mode[]> = { identity: ['ok'], content: ['ok'] }
  const calls = { identity: 0, content: 0, elsewhere: 0 }
  const lastTarget = { identity: '', content: '' }
  const timers = new Set<NodeJS.Timeout>()
  let hugeBytes = 0

  const server = createServer((request, response) => {
    const [, which, target] = /^\/(identity|content|elsewhere)(.*)$/.exec(request.url ?? '') ?? []
    if (which === 'elsewhere') {
      calls.elsewhere++
      return sendJson(response, 200, { entitled: true, available: true })
    }
    if (which !== 'identity' && which !== 'content') return sendJson(response, 404, {})
    calls[which]++
    lastTarget[which] = target ?? ''
    const queue = modes[which]
    const mode = (queue.length > 1 ? queue.shift() : queue[0]) ?? 'ok'
    act(which, mode, request, response)
  })

  function act (which: UpstreamName, mode: Mode, request: IncomingMessage, response: ServerResponse): void {
    if (typeof mode === 'object') {
      if ('json' in mode) return sendJson(response, mode.status ?? 200, mode.json, mode.headers)
      later(() => { sendJson(response, 200, GOOD[which]) }, mode.delayMs)
      return
    }
    switch (mode) {
      case 'ok': return sendJson(response, 200, GOOD[which])
      case 'status-500': return sendJson(response, 500, { error: 'broken' })
      case 'hang': return
      case 'hang-body':
      case 'status-500-hang':
        response.writeHead(mode === 'hang-body' ? 200 : 500, { 'content-type': 'application/json' }).write('{"entitled": tr')
        return
      case 'reset':
        request.socket.resetAndDestroy()
        return
      case 'html':
        response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>Maintenance</title>')
        return
      case 'redirect': return sendJson(response, 302, {}, { location: '/elsewhere' })
      case 'huge': return sendHuge(which, response)
      case 'slow-headers': {
        request.socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n')
        const timer = setInterval(() => { request.socket.write(`x-slow: ${'.'.repeat(10)}\r\n`) }, 20)
        timers.add(timer)
        request.socket.on('close', () => { clearInterval(timer) })
        return
      }
      case 'garbage':
        response.writeHead(200, { 'content-type': 'application/json' }).end('{"entitled":')
        return
      case 'marked': {
        const bytes = Buffer.from(`\uFEFF${JSON.stringify(GOOD[which])}`)
        response.writeHead(200, { 'content-type': 'application/json' }).write(bytes.subarray(0, 8))
        later(() => { response.end(bytes.subarray(8)) }, 20)
        return
      }
      case 'wrong-type': return sendJson(response, 200, { entitled: 'yes', available: 'yes' })
    }
  }

  function later (job: () => void, delayMs: number): void {
    const timer = setTimeout(() => { timers.delete(timer); job() }, delayMs)
    timers.add(timer)
  }

  function sendHuge (which: UpstreamName, response: ServerResponse): void {
    const pad = ' '.repeat(64 * 1024)
    let left = HUGE_BYTES
    response.writeHead(200, { 'content-type': 'application/json' })
    const more = () => {
      while (left > 0 && !response.destroyed) {
        left -= pad.length
        hugeBytes += pad.length
        if (!response.write(pad)) {
          response.once('drain', more)
          return
        }
      }
      if (!response.destroyed) response.end(JSON.stringify(GOOD[which]))
    }
    more()
  }

  server.listen(0, HOST)
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the stub has no port')
  const url = `http://${HOST}:${address.port}`
  return {
    identityUrl: `${url}/identity/`,
    contentUrl: `${url}/content`,
    calls,
    lastTarget,
    hugeBytesSent: () => hugeBytes,
    behave (which, mode) { modes[which] = typeof mode === 'object' && 'length' in mode ? [...mode] : [mode] },
    async close () {
      for (const timer of timers) clearTimeout(timer)
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    }
  }
}

function sendJson (response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', ...headers }).end(JSON.stringify(body))
}
