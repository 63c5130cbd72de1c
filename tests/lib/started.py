"""What is started and closed."""

import subprocess

END_S = 30


def end(process):
    """Ends a process that this one started, and waits for it: kindly first. None: nothing to do."""
    if process and process.poll() is None:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Started:
    """`with` for what has start() and close(): it runs in the block, and nothing of it is left, also if it did not start."""

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()
