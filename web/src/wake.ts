// Keeps the screen awake while the phone takes part: a browser stops a page's work when the screen goes dark.

let wanted = false;
let lock: WakeLockSentinel | null = null;

async function take(): Promise<void> {
  if (!wanted || lock || document.hidden || !("wakeLock" in navigator)) return;
  lock = await navigator.wakeLock.request("screen").catch(() => null); // refused when the battery is low
  lock?.addEventListener("release", () => (lock = null));
}

document.addEventListener("visibilitychange", () => void take());

export function keepAwake(on: boolean): void {
  wanted = on;
  if (on) void take();
  else void lock?.release();
}
