"""Which words the bundled world is made of. Every list was written for this project."""

FIRST_NAMES_SHE = (
    "Ada Alina Berta Carla Dora Elin Fenna Greta Hanna Ida Jana Kira "
    "Lena Mira Nora Olga Petra Rosa Sina Tilda Ulla Vera Wanda Yara"
).split()
FIRST_NAMES_HE = (
    "Arno Boris Carlo Dario Emil Felix Goran Hugo Ivo Jonas Karel Luca "
    "Marek Nico Oskar Pavel Remo Simon Tomas Udo Viktor Willem Yannis Zeno"
).split()
LAST_NAMES = (
    "Abelund Arvenko Balzaro Bergtal Brisky Cordani Dalgren Delmora Dornik Ebbers "
    "Falkner Ferrano Fossum Galdin Gerlach Grumov Halvik Hartog Holzer Ilves "
    "Jandl Jorvan Kalmer Kestrin Kolbach Lagerby Lindor Lovatt Madsen Marlow "
    "Moravek Nadler Nordby Olmstad Orlano Pastor Pellin Quandt Rastov Reinlo "
    "Rosmer Sandvik Selden Sorrel Stavik Talvera Tarnow Tolban Ullmer Vastin "
    "Velder Vinter Wahlin Warsik Weller Yarrow Zander Zelnik Ziegra Zorato"
).split()

CITIES = (
    "Altona Barrow Belmar Brenta Calder Corvo Delby Dunmore "
    "Elvas Farley Galway Hedmark Istra Jelling Kelso Lorca "
    "Marwick Merano Narva Oberon Orrin Padron Quill Ravello "
    "Sarnia Selby Tavira Torvik Umbra Verdal Wexley Zadar"
).split()
JOBS = (
    "baker barber banker brewer builder butcher carpenter chemist "
    "clerk cook dancer dentist doctor driver florist farmer "
    "fisher gardener glazier jeweler judge lawyer mason miner "
    "nurse painter pilot plumber potter singer tailor teacher"
).split()
HOBBIES = (
    "archery boxing chess climbing cycling diving drawing fencing "
    "golf hiking hockey juggling karate knitting magic poetry "
    "reading riding rowing running sailing skating surfing tennis"
).split()
PETS = (
    "canary cat crow dog donkey ferret frog goat "
    "goose hamster horse lizard parrot rabbit snake turtle"
).split()
YEARS = [str(year) for year in range(1950, 1990)]

RIVERS = "Aune Brisk Cale Dove Esk Fjara Glane Hasel Ister Juna Kolm Lyre".split()
REGIONS = "Northmark Eastfold Southmoor Westerby Highland Lowland".split()
GOODS = (
    "apples bells boats cheese clocks copper flowers glass "
    "honey lace paper salt silk tea wine wool"
).split()
