// Hands the microphone's samples on, 128 at a time.
class Microphone extends AudioWorkletProcessor {
  process([[channel]]) {
    if (channel) this.port.postMessage(channel.slice());
    return true;
  }
}
registerProcessor("microphone", Microphone);
