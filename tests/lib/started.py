"""What is started and closed."""


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
