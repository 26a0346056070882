import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Kafka, logLevel } from 'kafkajs'
import { kafkaLibrary } from '../../scripts/kafka-library.mjs'
import { track } from './children.ts'
import { freePort } from './redis-server.ts'
import { waitFor } from './wait-for.ts'

export interface KafkaBroker {
  address: string
  pause: () => void
  resume: () => void
  /** SIGKILL. */
  kill: () => Promise<void>
  /** Starts again on the same port and data; settles when it serves. */
  restart: () => Promise<void>
}

export interface KafkaCluster {
  brokers: KafkaBroker[]
  /** `host:port,…`, as `KAFKA_BROKERS` takes it. */
  addresses: string
  createTopic: (topic: string, partitions: number) => Promise<void>
  /** Index of the broker that leads a partition now. */
  leaderOf: (topic: string, partition: number) => Promise<number>
  close: () => Promise<void>
}

const HOST = '127.0.0.1'
const CLUSTER_ID = 'MkU3OEVBNTcwNTJENDM2Qk'
const JVM = ['-Xms64m', '-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1']
const LOG4J = `status = off
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %m%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
`

/** As `requireRedis`: a laptop without Java and Maven skips with the reason, CI fails. */
export function requireKafka (): { library: string, skip: string | false } {
  // kcat reads what was written, with a client that shares no code with ours.
  const library = spawnSync('kcat', ['-V']).status === 0 ? kafkaLibrary() : undefined
  const missing = library === undefined && process.env.CI !== 'true'
  return { library: library ?? '', skip: missing && 'needs Java 17 and Maven for a Kafka broker, and kcat' }
}

/** Real Apache Kafka (KRaft): one broker, or three with replication 3 and two in-sync replicas. */
export async function startKafka (library: string, nodes: 1 | 3 = 1): Promise<KafkaCluster> {
  const folder = await mkdtemp(join(tmpdir(), 'viewing-kafka-'))
  await writeFile(join(folder, 'log4j2.properties'), LOG4J)
  const ports = await Promise.all(Array.from({ length: nodes }, async () => ({ broker: await freePort(), controller: await freePort() })))
  const voters = ports.map(({ controller }, index) => `${index + 1}@${HOST}:${controller}`).join()
  const replication = nodes
  const inSync = nodes === 3 ? 2 : 1
  const java = (...args: string[]) => [...JVM, `-Dlog4j2.configurationFile=${join(folder, 'log4j2.properties')}`, '-cp', join(library, '*'), ...args]

  const brokers = await Promise.all(ports.map(async ({ broker, controller }, index) => {
    const properties = join(folder, `node-${index + 1}.properties`)
    await writeFile(properties, Object.entries({
      'process.roles': 'broker,controller',
      'node.id': index + 1,
      'controller.quorum.voters': voters,
      listeners: `PLAINTEXT://${HOST}:${broker},CONTROLLER://${HOST}:${controller}`,
      'advertised.listeners': `PLAINTEXT://${HOST}:${broker}`,
      'controller.listener.names': 'CONTROLLER',
      'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
      'inter.broker.listener.name': 'PLAINTEXT',
      'log.dirs': join(folder, `data-${index + 1}`),
      'auto.create.topics.enable': false,
      'offsets.topic.num.partitions': 1,
      'offsets.topic.replication.factor': replication,
      'transaction.state.log.replication.factor': replication,
      'transaction.state.log.min.isr': 1,
      'share.coordinator.state.topic.replication.factor': replication,
      'share.coordinator.state.topic.min.isr': 1,
      'default.replication.factor': replication,
      'min.insync.replicas': inSync,
      'group.initial.rebalance.delay.ms': 0,
      'broker.heartbeat.interval.ms': 500,
      'broker.session.timeout.ms': 3000
    }).map(([name, value]) => `${name}=${value}`).join('\n'))
    const format = spawnSync('java', java('kafka.tools.StorageTool', 'format', '-t', CLUSTER_ID, '-c', properties), { encoding: 'utf8' })
    if (format.status !== 0) throw new Error(`Kafka could not format its storage: ${format.stderr}`)
    let child: ChildProcess
    const start = async (): Promise<void> => {
      child = spawn('java', java('kafka.Kafka', properties), { stdio: ['ignore', 'pipe', 'ignore'], detached: true })
      track(child)
      const { stdout } = child
      if (stdout === null) throw new Error('no output of Kafka')
      const tail: string[] = []
      await new Promise<void>((resolve, reject) => {
        createInterface({ input: stdout }).on('line', line => {
          if (tail.push(line) > 20) tail.shift()
          if (line.includes('Kafka Server started')) resolve()
        })
        child.once('exit', () => {
          reject(new Error(`Kafka ended: ${tail.join('\n')}`))
        })
      })
    }
    return {
      address: `${HOST}:${broker}`,
      start,
      pause: () => { child.kill('SIGSTOP') },
      resume: () => { child.kill('SIGCONT') },
      kill: async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        const ended = once(child, 'exit')
        child.kill('SIGKILL')
        await ended
      },
      restart: start
    }
  }))
  await Promise.all(brokers.map(async broker => { await broker.start() }))

  const kafka = new Kafka({ clientId: 'test', brokers: brokers.map(({ address }) => address), logLevel: logLevel.NOTHING })
  const withAdmin = async <T>(work: (admin: ReturnType<Kafka['admin']>) => Promise<T>): Promise<T> => {
    const admin = kafka.admin()
    await admin.connect()
    try {
      return await work(admin)
    } finally {
      await admin.disconnect()
    }
  }
  return {
    brokers,
    addresses: brokers.map(({ address }) => address).join(),
    createTopic: async (topic, partitions) => {
      await withAdmin(async admin => await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: partitions, replicationFactor: replication }] }))
    },
    leaderOf: async (topic, partition) => await waitFor('a leader', async () => await withAdmin(async admin => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
      const leader = topics[0]?.partitions.find(({ partitionId }) => partitionId === partition)?.leader
      return leader === undefined || leader < 1 ? undefined : String(leader - 1)
    }).catch(() => undefined)).then(Number),
    close: async () => {
      await Promise.all(brokers.map(async broker => {
        broker.resume()
        await broker.kill()
      }))
      await rm(folder, { recursive: true, force: true })
    }
  }
}

/** Everything a topic holds, read by kcat (librdkafka): a consumer that shares no code with the producer. Needs `kcat` on PATH. */
export function readTopic (addresses: string, topic: string): Array<{ partition: number, offset: number, key: string, headers: string[], payload: string }> {
  const { stdout, status, stderr } = spawnSync('kcat', ['-C', '-b', addresses, '-t', topic, '-e', '-q', '-o', 'beginning', '-J'], { encoding: 'utf8', maxBuffer: 2 ** 30 })
  if (status !== 0) throw new Error(`kcat: ${stderr}`)
  return stdout.split('\n').filter(line => line !== '').map(line => JSON.parse(line))
}
