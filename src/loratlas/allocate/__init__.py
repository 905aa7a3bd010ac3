"""How are importance and a budget turned into a placement?"""
