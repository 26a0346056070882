import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

/** A line between two programs that can be long, go silent, or break. */
export interface TcpLink {
  host: string
  port: number
  /** Bytes stay on their way; connections stay up, as far as either end can tell. */
  hang: () => void
  /** Ends all connections, and those that come. */
  cut: () => void
  mend: () => void
  close: () => Promise<void>
}

const HOST = '127.0.0.1'

/** Listens on a free port and passes everything on to `port` and back, each byte `delayMs` late. */
export async function startTcpLink (port: number, delayMs = 0): Promise<TcpLink> {
  const sockets = new Set<Socket>()
  const waiting: Array<() => void> = []
  let state: 'up' | 'hanging' | 'cut' = 'up'

  function join (from: Socket, to: Socket): void {
    sockets.add(from)
    from.on('data', chunk => {
      const pass = (): void => {
        if (state === 'hanging') waiting.push(pass)
        else if (!to.destroyed) to.write(chunk)
      }
      if (delayMs === 0) pass()
      else setTimeout(pass, delayMs)
    })
    from.on('error', () => { /* its close says enough */ })
    from.on('close', () => {
      sockets.delete(from)
      if (state !== 'hanging') to.destroy()
    })
  }
  const server = createServer(near => {
    if (state === 'cut') {
      near.destroy()
      return
    }
    const far = connect(port, HOST)
    join(near, far)
    join(far, near)
  }).listen(0, HOST)
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the link has no port')
  const end = (): void => { for (const socket of sockets) socket.destroy() }
  return {
    host: HOST,
    port: address.port,
    hang: () => { state = 'hanging' },
    cut: () => {
      state = 'cut'
      waiting.length = 0
      end()
    },
    mend: () => {
      state = 'up'
      for (const pass of waiting.splice(0)) pass()
    },
    close: async () => {
      state = 'cut'
      end()
      server.close()
      await once(server, 'close')
    }
  }
}
