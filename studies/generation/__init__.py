"""Does a search find prompts after which a model writes what is wanted more often than after a person's prompts?"""
