import { once } from 'node:events'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

/** How one of the services is now; may be changed at any time. */
export interface Manner {
  delayMs: number
  /** Share of the questions that are answered 500. */
  errors: number
  /** Share of the questions that are answered with a no; users named `blocked-…` always are. */
  denials: number
  maxStreams: number
}

/** Identity and content service on loopback, well until told otherwise. */
export async function startUpstreamServices () {
  const well = (): Manner => ({ delayMs: 3, errors: 0, denials: 0, maxStreams: 4 })
  const manners = { identity: well(), content: well() }
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://localhost')
    const which = pathname.startsWith('/api/entitlement/') ? 'identity' : 'content'
    const { delayMs, errors, denials, maxStreams } = manners[which]
    const answer = (): void => {
      if (Math.random() < errors) {
        response.writeHead(500, { 'content-type': 'application/json' }).end('{}')
        return
      }
      const yes = Math.random() >= denials && searchParams.get('userID')?.startsWith('blocked-') !== true
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(which === 'identity' ? { entitled: yes, max_streams: maxStreams } : { available: yes }))
    }
    sleep(delayMs).then(answer, () => { response.destroy() })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${Object(server.address()).port}`,
    manners,
    mend: () => { Object.assign(manners.identity, well()); Object.assign(manners.content, well()) },
    close: async () => {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    }
  }
}
