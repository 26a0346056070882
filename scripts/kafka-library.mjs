// Fetches Apache Kafka's own broker from Maven Central, once, into a cache outside the checkout; prints the folder of its jars.
// Needs Java 17 and Maven. The demo, the tests and CI run a real broker from it.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

export const KAFKA_VERSION = '4.4.0'
const POM = `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>kafka-library</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>${KAFKA_VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version></dependency>
</dependencies></project>`

/** Folder of the jars; undefined when Java or Maven is not on this machine. */
export function kafkaLibrary () {
  const has = program => spawnSync(program, ['-version'], { stdio: 'ignore' }).status === 0
  if (!has('java')) return undefined
  const folder = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'viewing-service', `kafka-${KAFKA_VERSION}`)
  if (existsSync(folder)) return folder
  if (!has('mvn')) return undefined
  mkdirSync(join(folder, '..'), { recursive: true })
  // Beside its place: what is renamed cannot change the file system, and /tmp often is one of its own.
  const build = mkdtempSync(`${folder}-`)
  try {
    writeFileSync(join(build, 'pom.xml'), POM)
    const { status, stdout } = spawnSync('mvn', [
      '-q', '-B', 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${join(build, 'lib')}`
    ], { cwd: build, encoding: 'utf8' })
    if (status !== 0) throw new Error(`Maven could not fetch Kafka: ${stdout}`)
    renameSync(join(build, 'lib'), folder)
  } catch (error) {
    // Another process may have been faster; its folder is as good.
    if (!existsSync(folder)) throw error
  } finally {
    rmSync(build, { recursive: true, force: true })
  }
  return folder
}

if (process.argv[1]?.endsWith('kafka-library.mjs')) process.stdout.write(`${kafkaLibrary() ?? 'Java and Maven are needed'}\n`)
