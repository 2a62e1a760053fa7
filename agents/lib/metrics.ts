/** What every agent measures. Names follow Prometheus' conventions (prometheus.io/docs/practices/naming). */
import { Counter, Gauge, Registry } from 'prom-client';

/** `configValid` is asked at each scrape. */
export function registerConfigValid(registry: Registry, configValid: () => boolean): void {
  const gauge = new Gauge({
    name: 'constellation_vpn_config_valid',
    help: '1: the configuration as it is now is in force. 0: it is refused, and the last good one, if any, stays.',
    registers: [],
    collect() {
      this.set(Number(configValid()));
    },
  });
  registry.registerMetric(gauge);
}

/**
 * A registry with the process's own figures. prom-client's default set is left out: its event loop gauge wakes the
 * process up a hundred times a second.
 */
export function createRegistry(): Registry {
  const registry = new Registry();
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number): Gauge =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  const startedAt = Date.now() / 1000 - process.uptime();
  const cpu = new Counter({
    name: 'process_cpu_seconds_total',
    help: 'User and system CPU time, in seconds.',
    registers: [],
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  registry.registerMetric(cpu);
  gauge('process_resident_memory_bytes', 'Resident memory, in bytes.', () => process.memoryUsage.rss());
  gauge('process_start_time_seconds', 'Start of the process, in seconds since 1970.', () => startedAt);
  return registry;
}
