import { runProgram } from './exec.ts';

/**
 * Tells systemd (a unit of `Type=notify`) how this process is doing; does nothing without a supervisor. Node has no unix datagram
 * sockets, so systemd's own program sends the message. Source: sd_notify(3).
 */
export async function notifySupervisor(state: 'READY=1' | 'STOPPING=1'): Promise<void> {
  if (!process.env['NOTIFY_SOCKET']) return;
  await runProgram('systemd-notify', [`--pid=${process.pid}`, state], {
    purpose: 'tell systemd that the daemon is ready',
  });
}
