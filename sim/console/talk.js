// Push to talk: while the button is held the microphone's sound goes out in pieces, as 16-bit samples; words come
// back as if they had been typed. The microphone is open only then.

const PIECE = 2000;  // samples in a message

export function pushToTalk(button, send, raw, trouble) {
  let held = null;  // the hold that is on: what it has heard, and how its microphone is closed

  function pieces(hold, all) {
    const heard = hold.heard;
    while (heard.length >= PIECE || (all && heard.length)) raw(new Int16Array(heard.splice(0, PIECE)).buffer);
  }

  async function listen(hold) {
    let stream = null, audio = null;
    hold.close = () => { stream?.getTracks().forEach((track) => track.stop()); audio?.close(); };
    const wanted = { audio: { channelCount: 1, echoCancellation: false } };
    stream = await navigator.mediaDevices.getUserMedia(wanted);
    if (hold.over) return hold.close();
    audio = new AudioContext();
    await audio.audioWorklet.addModule("microphone.js");
    if (hold.over) return;  // what was open is closed
    const ears = new AudioWorkletNode(audio, "microphone");
    ears.port.onmessage = ({ data }) => {
      if (hold.over) return;
      hold.open = true;
      for (const value of data) hold.heard.push(Math.max(-1, Math.min(1, value)) * 32767);
      pieces(hold, false);
    };
    audio.createMediaStreamSource(stream).connect(ears);
  }

  async function press() {
    if (held || button.hidden) return;
    const hold = held = { heard: [], over: false, open: false, close: () => {} };
    button.setAttribute("aria-pressed", "true");
    send({ do: "talk", on: true });
    try {
      await listen(hold);
    } catch (error) {
      if (!hold.over) trouble(`no microphone can be heard: ${error.message || error.name}`, 4000);
      hold.open = true;  // that was said, and nothing more is
      if (held === hold) release();
      hold.close();
    }
  }

  function release() {  // waits for nothing: the next press finds everything as at the beginning
    const hold = held;
    if (!hold) return;
    held = null;
    hold.over = true;
    hold.close();
    button.setAttribute("aria-pressed", "false");
    if (!hold.open) trouble("hold it until you have spoken: the microphone was not open yet", 4000);
    pieces(hold, true);
    send({ do: "talk", on: false });
  }

  button.addEventListener("pointerdown", press);
  for (const way of ["pointerup", "pointercancel", "blur"]) addEventListener(way, release);
  document.addEventListener("visibilitychange", release);
  return { press, release };
}
