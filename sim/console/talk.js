// Push to talk: while the button is held the microphone's sound goes out in pieces, as 16-bit samples; words come
// back as if they had been typed. The microphone is open only then.

const RATE = 16000, PIECE = 2000;  // samples a second, and in a message

export function pushToTalk(button, send, raw, trouble) {
  let held = false, open = null, waiting = [];

  function pieces(all) {
    while (waiting.length >= PIECE || (all && waiting.length)) raw(new Int16Array(waiting.splice(0, PIECE)).buffer);
  }

  async function listen() {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false } });
    const audio = new AudioContext({ sampleRate: RATE });
    await audio.audioWorklet.addModule("microphone.js");
    const ears = new AudioWorkletNode(audio, "microphone");
    ears.port.onmessage = ({ data }) => {
      for (const value of data) waiting.push(Math.max(-1, Math.min(1, value)) * 32767);
      pieces(false);
    };
    audio.createMediaStreamSource(stream).connect(ears);
    return () => { stream.getTracks().forEach((track) => track.stop()); audio.close(); };
  }

  async function press() {
    if (held || button.hidden) return;
    held = true;
    waiting = [];
    button.setAttribute("aria-pressed", "true");
    send({ do: "talk", on: true });
    try {
      open = listen();
      await open;
    } catch (error) {
      trouble(`no microphone can be heard: ${error.message || error.name}`, 4000);
      release();
    }
  }

  async function release() {
    if (!held) return;
    held = false;
    button.setAttribute("aria-pressed", "false");
    const close = await open?.catch(() => null);  // it may still be opening
    open = null;
    close?.();
    pieces(true);
    send({ do: "talk", on: false });
  }

  button.addEventListener("pointerdown", press);
  for (const way of ["pointerup", "pointercancel"]) addEventListener(way, release);
  addEventListener("blur", release);
  return { press, release };
}
