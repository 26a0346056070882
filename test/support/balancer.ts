import { once } from 'node:events'
import { Agent, createServer, request as send, type IncomingMessage, type ServerResponse } from 'node:http'

/**
 * A load balancer that behaves as a Kubernetes Service does: a backend gets requests while its readiness probe is 200, in turn with the others, and a
 * request that fails is not sent again to another one. So whatever a restart breaks is seen by the caller.
 */
export interface Balancer {
  url: string
  /** Begins to probe a backend; it gets requests from its first 200 on. */
  add: (backend: string) => void
  /** Backends that get requests now. */
  ready: () => string[]
  /** Requests each backend was given. */
  given: ReadonlyMap<string, number>
  close: () => Promise<void>
}

interface Backend { url: string, agent: Agent, ready: boolean }

export async function startBalancer ({ probeMs = 100 } = {}): Promise<Balancer> {
  const backends: Backend[] = []
  const given = new Map<string, number>()
  let turn = 0

  async function probe (backend: Backend): Promise<void> {
    const answer = await fetch(`${backend.url}/health/ready`, { signal: AbortSignal.timeout(1_000) }).catch(() => undefined)
    await answer?.arrayBuffer().catch(() => { /* the status is all that counts */ })
    backend.ready = answer?.status === 200
  }
  const timer = setInterval(() => { for (const backend of backends) probe(backend).catch(() => { backend.ready = false }) }, probeMs)

  function pass (request: IncomingMessage, response: ServerResponse): void {
    const open = backends.filter(({ ready }) => ready)
    const backend = open[turn++ % open.length]
    const fail = (reason: string): void => {
      if (response.headersSent) response.destroy()
      else response.writeHead(502, { 'content-type': 'text/plain' }).end(reason)
    }
    if (backend === undefined) {
      fail('no backend is ready')
      return
    }
    given.set(backend.url, (given.get(backend.url) ?? 0) + 1)
    const { hostname, port } = new URL(backend.url)
    const onward = send({ agent: backend.agent, host: hostname, port, path: request.url, method: request.method, headers: request.headers }, answer => {
      const { connection: _hopByHop, 'keep-alive': _alsoHopByHop, ...headers } = answer.headers
      response.writeHead(answer.statusCode ?? 502, headers)
      answer.pipe(response)
    })
    onward.on('error', error => { fail(`${backend.url}: ${error.message}`) })
    request.pipe(onward)
  }

  const server = createServer(pass).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${Object(server.address()).port}`,
    add: url => { backends.push({ url, agent: new Agent({ keepAlive: true }), ready: false }) },
    ready: () => backends.filter(({ ready }) => ready).map(({ url }) => url),
    given,
    close: async () => {
      clearInterval(timer)
      server.close()
      server.closeAllConnections()
      for (const { agent } of backends) agent.destroy()
      await once(server, 'close')
    }
  }
}
