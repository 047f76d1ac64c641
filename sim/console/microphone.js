// Hands the microphone's samples on, 16,000 a second, each the mean of those of the device that fall into it.
const STEP = sampleRate / 16000;

class Microphone extends AudioWorkletProcessor {
  sum = 0;
  count = 0;
  left = STEP;

  process([[channel]]) {
    const out = [];
    for (const value of channel || []) {
      this.sum += value;
      this.count += 1;
      this.left -= 1;
      for (; this.left <= 0; this.left += STEP) {
        out.push(this.count ? this.sum / this.count : value);
        this.sum = this.count = 0;
      }
    }
    if (out.length) this.port.postMessage(out);
    return true;
  }
}
registerProcessor("microphone", Microphone);
