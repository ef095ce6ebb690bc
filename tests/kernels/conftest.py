from hypothesis import settings

settings.register_profile("compiled", deadline=None)  # the first example compiles the kernel
settings.load_profile("compiled")
