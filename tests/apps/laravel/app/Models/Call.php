<?php

namespace App\Models;

class Call extends CompanyRecord
{
}
